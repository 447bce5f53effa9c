// Books what was sold, and for which card.
import { serve } from './http.js';

let entries = 0;

serve('ledger', {
  'POST /entries': ({ book, card }) => ({ entry: ++entries, receipt: `${book}, paid with ${card}` }),
});
