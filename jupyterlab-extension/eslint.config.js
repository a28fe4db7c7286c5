/**
 * Beside the usual rules this file holds the house's: who may know whom.
 * client.ts alone touches the network; the model has no DOM; components know neither.
 */
import hooks from 'eslint-plugin-react-hooks';
import tseslint from 'typescript-eslint';

const network = ['fetch', 'EventSource', 'WebSocket', 'XMLHttpRequest'].map(name => ({
  name,
  message: 'Only src/client.ts touches the network.'
}));
const dom = ['window', 'document', 'navigator', 'localStorage', 'sessionStorage'].map(name => ({
  name,
  message: 'The model has no DOM: it runs in a test as it runs in a page.'
}));
const services = {
  group: ['@jupyterlab/services', '@jupyterlab/services/*'],
  importNames: ['ServerConnection'],
  message: 'Only src/client.ts touches the network.'
};
const restrictImports = patterns => ['error', { patterns }];

export default tseslint.config(
  {
    ignores: ['lib/', 'node_modules/', 'jupyterlab_gpuhub/labextension/', 'src/contract.ts']
  },
  ...tseslint.configs.recommended,
  {
    files: ['**/*.{ts,tsx}'],
    plugins: { 'react-hooks': hooks },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'react-hooks/rules-of-hooks': 'error',
      'react-hooks/exhaustive-deps': 'error',
      curly: ['error', 'all'],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error'
    }
  },
  {
    files: ['src/**/*.{ts,tsx}'],
    ignores: ['src/client.ts'],
    rules: {
      'no-restricted-globals': ['error', ...network],
      'no-restricted-imports': restrictImports([services])
    }
  },
  {
    files: ['src/model/**/*.ts'],
    rules: {
      'no-restricted-globals': ['error', ...network, ...dom],
      'no-restricted-imports': restrictImports([
        services,
        { group: ['react', 'react-dom', '**/components/*'], message: 'The model has no DOM.' }
      ])
    }
  },
  {
    files: ['src/components/**/*.{ts,tsx}'],
    rules: {
      'no-restricted-imports': restrictImports([
        services,
        {
          group: ['**/client', '**/model/*'],
          message: 'Components get what they show as properties.'
        }
      ])
    }
  }
);
