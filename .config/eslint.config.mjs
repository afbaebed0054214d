// Type-checked linting of everything we write. Formatting is Biome's, import law is dependency-cruiser's.
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["**/node_modules/**", "**/dist/**", "**/src/db/generated/**", "**/openapi/**"] },
  {
    files: ["**/*.ts", "src/setup/**/*.mjs", "src/consoles/page/*.mjs"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: `${import.meta.dirname}/..` },
    },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      // Numbers and bigints in messages are what a message is for.
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      // `newId<VmId>()`: a brand is named by the caller, so its type parameter stands in the result only.
      "@typescript-eslint/no-unnecessary-type-parameters": "off",
      eqeqeq: ["error", "always"],
      "no-console": "error",
    },
  },
  {
    // An async handler or fake must keep the interface's shape even where it has nothing to await.
    files: ["test/**/*.ts", "src/**/*-routes.ts"],
    rules: { "@typescript-eslint/require-await": "off" },
  },
);
