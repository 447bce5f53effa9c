// The shop's door: asks the catalog what there is, and the cart to take an order.
import { call, serve } from './http.js';

serve('frontend', {
  'GET /hours': () => ({ hours: 'open from nine to five' }),
  'GET /books': () => call('catalog', 'GET', '/books'),
  'POST /orders': (order) => call('cart', 'POST', '/items', order),
});
