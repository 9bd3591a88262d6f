"use strict";
// Shows the OpenAPI description as a page: operations with their parameters, bodies and responses.

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// Formats a schema as one line. Referenced schemas are expanded, except within themselves.
function outline(schema, all, parents = []) {
  if (schema === undefined) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return parents.includes(name) ? name : outline(all[name], all, [...parents, name]);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map((choice) => outline(choice, all, parents)).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${outline(schema.items ?? {}, all, parents)}, …]`;
  if (!schema.properties) return schema.type ?? "any";
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties).map(
    ([name, field]) => `${name}${required.includes(name) ? "" : "?"}: ${outline(field, all, parents)}`,
  );
  return `{${fields.join(", ")}}`;
}

function part(title, text) {
  return text ? [element("h3", { textContent: title }), element("pre", { textContent: text })] : [];
}

function operation(method, path, description, all) {
  const summary = element("summary", {}, element("code", { textContent: `${method.toUpperCase()} ${path}` }));
  const parameters = (description.parameters ?? []).map(
    (each) => `${each.name} (${each.in}${each.required ? ", required" : ""}): ${outline(each.schema, all)}`,
  );
  const body = outline(Object.values(description.requestBody?.content ?? {})[0]?.schema, all);
  const responses = Object.entries(description.responses).map(([status, each]) => `${status}: ${each.description}`);
  return element(
    "details",
    {},
    summary,
    element("p", { textContent: description.description ?? description.summary }),
    ...part("Parameters", parameters.join("\n")),
    ...part("Body", body),
    ...part("Responses", responses.join("\n")),
  );
}

async function show() {
  const openapi = await (await fetch("openapi.json")).json();
  const operations = Object.entries(openapi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, each]) => operation(method, path, each, openapi.components.schemas)),
  );
  document.getElementById("operations").replaceChildren(...operations);
}

show().catch((error) => {
  document.getElementById("status").textContent = error.message;
});
