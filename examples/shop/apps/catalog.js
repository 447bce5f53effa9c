// Knows the books.
import { serve } from './http.js';

serve('catalog', {
  'GET /books': () => ({ books: ['The Silent Culvert', 'Water Under Roads'] }),
});
