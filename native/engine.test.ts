import { closeSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../test/support/listening-socket.js';
import { NativeEngine, NativeEngines, NativeEvent, WAKE_HANDLE } from './engine.js';
import { libraryPath, openLibrary } from './library.js';

const EBADF = -9;

test('the library in use is the one that was asked for', () => {
  const isSanitized = openLibrary().bind<() => number>('int culvert_is_sanitized()')() === 1;
  expect(isSanitized).toBe(libraryPath().endsWith('.asan.so'));
});

test('a library that is missing or none says what to do', () => {
  expect(() => openLibrary('/nowhere/culvert-native.so')).toThrow(/make -C native/);
  expect(() => openLibrary(fileURLToPath(import.meta.url))).toThrow(/does not load/);
});

test('stale and foreign handles are refused, whatever the call', () => {
  const engines = new NativeEngines();
  const engine = new NativeEngine(engines.create(100));
  using listening = new ListeningSocket();
  const first = engine.listen(listening.fd, false);
  expect(first).toBeGreaterThanOrEqual(0);
  expect(engine.close(first, false)).toBe(0);
  const bytes = Buffer.alloc(64);
  for (const handle of [first, -1, 0x7fffffff, 12345]) {
    expect(engine.read(handle, bytes, 0, 8)).toBe(EBADF);
    expect(engine.write(handle, bytes, 0, 8)).toBe(EBADF);
    expect(engine.shutdown(handle)).toBe(EBADF);
    expect(engine.pause(handle, true)).toBe(EBADF);
    expect(engine.close(handle, true)).toBe(EBADF);
    expect(engine.accept(handle, 0, bytes)).toBe(EBADF);
    expect(engine.addresses(handle, bytes)).toBe(EBADF);
    expect(engine.peerCertificate(handle)).toBeNull();
    expect(engine.failure(handle).text).toBe('EBADF');
  }
  const second = engine.listen(listening.fd, false);
  expect(second).not.toBe(first);
  expect(engines.destroy(engine.id)).toBe(0);
  // The listening socket was only borrowed: it is still there to be closed.
  expect(engine.read(second, bytes, 0, 8)).toBe(EBADF);
  expect(engine.wait.bind(engine, new Int32Array(16), 0)).toThrow(/EBADF/);
  expect(engines.destroy(engine.id)).toBe(0);
});

test('wake and stop reach a waiting engine; descriptors that are no sockets are refused', () => {
  const engines = new NativeEngines();
  const engine = new NativeEngine(engines.create(100));
  const events = new Int32Array(16);
  expect(engine.wait(events, 0)).toBe(0);
  engines.wake(engine.id);
  engines.wake(engine.id);
  expect(engine.wait(events, 1000)).toBe(1);
  expect([events[0], events[1]]).toEqual([WAKE_HANDLE, NativeEvent.READABLE]);
  expect(engine.wait(events, 0)).toBe(0);
  expect(engine.listen(99_999, false)).toBe(EBADF);
  const file = openSync(fileURLToPath(import.meta.url), 'r');
  expect(engine.listen(file, false)).toBeLessThan(0);
  closeSync(file);
  engines.stop(engine.id);
  expect(engine.wait(events, 1000)).toBe(-1);
  expect(engine.wait(events, 1000)).toBe(-1);
  engines.destroy(engine.id);
});

test('an engine that is destroyed leaves no descriptor behind', () => {
  const engines = new NativeEngines();
  const probe = () => {
    const fd = openSync('/dev/null', 'r');
    closeSync(fd);
    return fd;
  };
  const before = probe();
  for (let i = 0; i < 300; i++) engines.destroy(engines.create(100));
  expect(probe()).toBe(before);
});
