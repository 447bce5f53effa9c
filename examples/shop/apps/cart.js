// Takes orders and has them booked.
import { call, serve } from './http.js';

serve('cart', {
  'POST /items': (order) => call('ledger', 'POST', '/entries', order),
});
