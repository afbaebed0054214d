import { StartupError } from "../lib/startup-error.ts";

/** The database cannot be used as it is: the start stops, and the message says what a person has to do. */
export class DatabaseSetupError extends StartupError {
  override readonly name = "DatabaseSetupError";
}
