import { expect, test } from '@jest/globals';
import { closest } from './closest.js';

test.each([
  ['AuthorisationPolicy', 'AuthorizationPolicy'],
  ['authorizationpolicy', 'AuthorizationPolicy'],
  ['AuthorizationPolicies', 'AuthorizationPolicy'],
  ['Pods', 'Pod'],
  ['Namepsace', 'Namespace'],
  ['Deployment', null],
  ['Role', null],
  ['Job', null],
])('%s is meant as %s', (text, meant) => {
  expect(closest(text, ['AuthorizationPolicy', 'Pod', 'Node', 'Namespace', 'Service'])).toBe(meant);
});
