// Read a queue with sqs-consumer: batches of ten, a handler that does nothing, several pollers in one process.
import { SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

// it warns of this version of node
process.removeAllListeners("warning");

const [endpoint, queueUrl, pollers] = process.argv.slice(2);
const sqs = new SQSClient({ endpoint });
for (let number = 0; number < Number(pollers); number += 1) {
  const consumer = Consumer.create({
    queueUrl,
    sqs,
    batchSize: 10,
    waitTimeSeconds: 20,
    attributeNames: ["All"],
    handleMessageBatch: async (messages) => messages,
  });
  for (const kind of ["error", "processing_error"]) {
    consumer.on(kind, (error) => {
      console.error(error);
      process.exit(1);
    });
  }
  consumer.start();
}
