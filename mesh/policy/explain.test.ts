import { expect, test } from '@jest/globals';
import { rejectionText } from './index.js';

test.each([
  ['shop/deny', 'shop/deny'],
  [
    'istio-system/istio_converted_static_strict',
    'istio-system/istio_converted_static_strict (PeerAuthentication STRICT: the peer showed no identity of the mesh)',
  ],
  [
    'shop/converted_peer_authentication_cart',
    'shop/converted_peer_authentication_cart (PeerAuthentication shop/cart STRICT: the peer showed no identity of the mesh)',
  ],
])('a denial by %s names what its user wrote', (policy, shown) => {
  expect(rejectionText({ policy, reason: 'denied' })).toBe(
    `connection closed due to policy rejection: explicitly denied by: ${shown}`,
  );
});
