/** The service cannot start as things are: the message is one line that says what a person has to do. */
export class StartupError extends Error {
  override readonly name: string = "StartupError";
}
