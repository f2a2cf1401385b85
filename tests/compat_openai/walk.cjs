// The npm package `openai` through a job, as docs/api.md shows it.
// TACIT_URL=http://127.0.0.1:8000/v1 TACIT_STEWARD=tacit_... TACIT_ANALYST=tacit_... node walk.cjs rows.csv
const fs = require("fs");
const OpenAI = require("openai");

const steward = new OpenAI({ baseURL: process.env.TACIT_URL, apiKey: process.env.TACIT_STEWARD });
const analyst = new OpenAI({ baseURL: process.env.TACIT_URL, apiKey: process.env.TACIT_ANALYST });

async function main() {
  const uploaded = await steward.files.create({
    file: fs.createReadStream(process.argv[2]),
    purpose: "fine-tune",
    privacy_budget: { epsilon: 8 }, // what is not OpenAI's goes beside what is
    declared_size: 400,
    labels: ["fruit", "metal"],
    max_length: 16,
  });
  const file = await steward.files.waitForProcessing(uploaded.id);
  await steward.post(`/budgets/${file.budget}/grants`, { body: { project: "lab" } });

  const numbers = { steps: 20, batch_size: 20, learning_rate: 0.02 };
  const job = await analyst.fineTuning.jobs.create({
    model: "tiny",
    training_file: file.id,
    method: { type: "lora", lora: { r: 4, hyperparameters: numbers } },
    metadata: { walk: "node" },
    privacy: { epsilon: 3 },
  });
  for await (const other of analyst.fineTuning.jobs.list({ limit: 1, metadata: { walk: "node" } })) {
    if (other.id !== job.id) throw new Error(`a stranger: ${other.id}`);
  }
  const paused = await analyst.fineTuning.jobs.pause(job.id);
  if (paused.status_detail !== "paused") throw new Error(`not paused: ${paused.status_detail}`);
  await analyst.fineTuning.jobs.resume(job.id);
  console.log(job.id);

  let now = job;
  while (["validating_files", "queued", "running"].includes(now.status)) {
    await new Promise((done) => setTimeout(done, 500));
    now = await analyst.fineTuning.jobs.retrieve(job.id);
  }
  if (now.status !== "succeeded") throw new Error(`${now.status}: ${now.error?.message} ${now.error?.hint}`);
  for await (const event of analyst.fineTuning.jobs.listEvents(job.id, { limit: 5 })) {
    if (event.object !== "fine_tuning.job.event") throw new Error(event.object);
  }
  const adapter = await analyst.files.content(now.result_files[0]);
  fs.writeFileSync("adapter.zip", Buffer.from(await adapter.arrayBuffer()));

  try {
    await analyst.fineTuning.jobs.pause(job.id);
    throw new Error("a finished job was paused");
  } catch (error) {
    if (!(error instanceof OpenAI.ConflictError) || error.code !== "job_has_ended") throw error;
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
