// Validates an Amazon States Language document with the language service of the AWS Toolkits. Prints a line a finding; exits 1 if any.
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");
const load = createRequire(path.join(path.resolve(process.argv[2]), "package.json"));
const { getLanguageService, TextDocument } = load("amazon-states-language-service");

async function main() {
  const text = fs.readFileSync(0, "utf8");
  const service = getLanguageService({});
  const document = TextDocument.create("file:///machine.asl.json", "json", 1, text);
  const findings = await service.doValidation(document, service.parseJSONDocument(document), {}, {});
  for (const { message, range } of findings) console.log(`line ${range.start.line + 1}: ${message}`);
  process.exit(findings.length ? 1 : 0);
}
main();
