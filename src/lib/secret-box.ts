import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";

const ALGORITHM = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** First byte of every sealed value, so that another form can be told apart later. */
const VERSION = 1;

/** Encrypts what must be kept but never shown, with AES-256-GCM: version, nonce, tag, ciphertext. */
export interface SecretBox {
  seal(plain: string): Uint8Array<ArrayBuffer>;
  /** Throws when the value was sealed under another key or was changed. */
  open(sealed: Uint8Array): string;
}

/** `key` is 32 bytes. */
export function createSecretBox(key: Uint8Array): SecretBox {
  if (key.length !== 32) throw new RangeError("a secret key has 32 bytes");
  return {
    seal(plain) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv(ALGORITHM, key, nonce);
      const body = Buffer.concat([cipher.update(plain, "utf8"), cipher.final()]);
      return new Uint8Array(Buffer.concat([Buffer.of(VERSION), nonce, cipher.getAuthTag(), body]));
    },
    open(sealed) {
      const bytes = Buffer.from(sealed);
      if (bytes[0] !== VERSION) throw new Error("a sealed value of an unknown version");
      const tagAt = 1 + NONCE_BYTES;
      const bodyAt = tagAt + TAG_BYTES;
      // Without its length named, a tag that was cut short would do.
      const options = { authTagLength: TAG_BYTES };
      const decipher = createDecipheriv(ALGORITHM, key, bytes.subarray(1, tagAt), options);
      decipher.setAuthTag(bytes.subarray(tagAt, bodyAt));
      return Buffer.concat([decipher.update(bytes.subarray(bodyAt)), decipher.final()]).toString("utf8");
    },
  };
}
