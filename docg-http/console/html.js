// The one way to write elements: htm templates that make preact nodes.
import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export * from "./vendor/hooks.js";
