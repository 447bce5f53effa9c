import protobuf from 'protobufjs/minimal.js';

/** Decodes with fields that the message does not know kept in `$unknowns` of each message, for readers that must refuse them. Throws on malformed bytes. */
export function decodeKeepingUnknown<Message>(
  type: { decode(reader: protobuf.Reader): Message },
  bytes: Uint8Array,
): Message {
  const reader = protobuf.Reader.create(bytes);
  reader.discardUnknown = false;
  return type.decode(reader);
}
