// Tests run on what is shipped: dist/, built by `npm run build`. Tiers are folders; see test/README.md.
const tier = (displayName, testMatch, settings = {}) => ({
  displayName,
  testMatch,
  testEnvironment: 'node',
  transform: {},
  rootDir: '.',
  modulePathIgnorePatterns: ['<rootDir>/node_modules'],
  ...settings,
});

// One file at a time: these share the kernel.
const serialTier = (displayName, testMatch) =>
  tier(displayName, testMatch, { runner: '<rootDir>/test/serial-runner.js' });

export default {
  // Per test, where it names none: the machine may be busy, and what hangs still ends.
  testTimeout: 60_000,
  projects: [
    tier('unit', [
      '<rootDir>/dist/{mesh,native,agent,control,waypoint,cli}/**/*.test.js',
      '<rootDir>/dist/test/*.test.js',
    ]),
    serialTier('bpf', ['<rootDir>/dist/test/bpf/**/*.test.js']),
    serialTier('netns', ['<rootDir>/dist/test/{netns,lab,soak}/**/*.test.js']),
    serialTier('interop', ['<rootDir>/dist/test/interop/**/*.test.js']),
    serialTier('bench', ['<rootDir>/dist/test/bench/**/*.test.js']),
    serialTier('kubernetes', ['<rootDir>/dist/test/{kubernetes,scale}/**/*.test.js']),
  ],
};
