/** Only the ASN.1 part of node-forge: the whole takes 8 MB more of every process that loads it. */
declare module 'node-forge/lib/asn1.js' {
  import type { asn1 } from 'node-forge';

  const part: typeof asn1;
  export default part;
}
