-- CreateTable
CREATE TABLE "console_ticket" (
    "secret_hash" BYTEA NOT NULL,
    "vm_id" UUID NOT NULL,
    "token_id" UUID NOT NULL,
    "actor" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
    "force" BOOLEAN NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "console_ticket_pkey" PRIMARY KEY ("secret_hash")
);

-- CreateIndex
CREATE INDEX "console_ticket_vm_id_idx" ON "console_ticket"("vm_id");

-- CreateIndex
CREATE INDEX "console_ticket_token_id_idx" ON "console_ticket"("token_id");

-- CreateIndex
CREATE INDEX "console_ticket_expires_at_idx" ON "console_ticket"("expires_at");

-- AddForeignKey
ALTER TABLE "console_ticket" ADD CONSTRAINT "console_ticket_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "console_ticket" ADD CONSTRAINT "console_ticket_token_id_fkey" FOREIGN KEY ("token_id") REFERENCES "api_token"("id") ON DELETE CASCADE ON UPDATE CASCADE;
