// Tests run on what is shipped: dist/, built by `npm run build`. Tiers are folders; see test/README.md.
const tier = (displayName, testMatch) => ({
  displayName,
  testMatch,
  testEnvironment: 'node',
  transform: {},
  rootDir: '.',
  modulePathIgnorePatterns: ['<rootDir>/node_modules'],
});

export default {
  projects: [
    tier('unit', [
      '<rootDir>/dist/{mesh,native,agent,control,waypoint,cli}/**/*.test.js',
      '<rootDir>/dist/test/*.test.js',
    ]),
    tier('bpf', ['<rootDir>/dist/test/bpf/**/*.test.js']),
    tier('netns', ['<rootDir>/dist/test/{netns,lab}/**/*.test.js']),
    tier('interop', ['<rootDir>/dist/test/interop/**/*.test.js']),
    tier('bench', ['<rootDir>/dist/test/bench/**/*.test.js']),
  ],
};
