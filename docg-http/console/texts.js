// The console's own texts. Texts about executions come from the API, in the reader's language.
const en = {
  inbox: "Inbox", executions: "Executions", workflows: "Workflows", system: "System", signOut: "Sign out",
  signIn: "Sign in", token: "Access token", tokenHint: "The server prints a link with a token when it starts in development.",
  organization: "Organization (only if the token has several)", wrongToken: "This token is not accepted. Check it, or ask for a new one.",
  live: "Live", offline: "Not live. Connecting again …", loading: "Loading …", retryLoad: "Try again",
  nothingWaits: "Nothing waits for a person", nothingWaitsHint: "Executions that need a decision, a correction or a signature appear here.",
  noExecutions: "No executions", noExecutionsHint: "Start one from a workflow, or change the filters.",
  all: "All", waitsFor: "Waits for", since: "since", until: "until", status: "Status", workflow: "Workflow", title: "Title",
  step: "Step", age: "Started", reason: "Reason", search: "Search by title or id", more: "Show more",
  open: "Open", cancel: "Cancel", pause: "Pause", resume: "Resume", retry: "Retry", start: "Start", dryRun: "Dry run",
  confirmCancel: "Cancel this execution? It cannot be resumed.", yes: "Yes", no: "No", selected: "selected",
  overview: "Overview", steps: "Steps", log: "Log", audit: "Audit", raw: "Raw", preflight: "Checks", documents: "Documents",
  input: "Input", output: "Output", technical: "Technical details", copyCurl: "Copy as curl", copied: "Copied",
  verify: "Verify the chain", valid: "The chain is unbroken: {n} rows.", invalid: "The chain is broken from row {n}.",
  noTechnical: "Your token does not show technical details.", phases: "Time", work: "work", waiting: "waiting",
  whatNow: "What to do", oldValue: "Now", send: "Send",
  checked: "Checked", noIssues: "The checks found nothing.", check: "Check",
  startTitle: "Start “{name}”", version: "version {n}", noWorkflows: "No workflows", noWorkflowsHint: "PUT one through the API, or start the server with a folder of workflows.",
  data: "Data", steps_n: "{n} steps", health: "Health", ready: "Ready", notReady: "Not ready", loses: "This loses: {what}. Continue?",
  keys: "Keys: / search · j k move · Enter open · r reload · ? help", notFound: "There is nothing here.", skip: "Skip to content",
  language: "Language", filters: "Filters", menu: "Pages", created: "Created", notAllowed: "Your token may not do this.", again: "Something went wrong.",
  required: "required", add: "Add", remove: "Remove", actor: "Who", action: "What", time: "When", level: "Level", message: "Message",
  signers: "Signers", done: "Done.", passedOn: "Passed on. The page shows when it is done.",
};
const pt = {
  inbox: "Entrada", executions: "Execuções", workflows: "Fluxos", system: "Sistema", signOut: "Sair",
  signIn: "Entrar", token: "Token de acesso", tokenHint: "Em desenvolvimento, o servidor mostra um link com um token ao iniciar.",
  organization: "Organização (somente se o token tiver várias)", wrongToken: "Este token não foi aceito. Confira-o ou peça um novo.",
  live: "Ao vivo", offline: "Sem atualização. Reconectando …", loading: "Carregando …", retryLoad: "Tentar novamente",
  nothingWaits: "Nada aguarda uma pessoa", nothingWaitsHint: "Execuções que precisam de decisão, correção ou assinatura aparecem aqui.",
  noExecutions: "Nenhuma execução", noExecutionsHint: "Inicie uma a partir de um fluxo ou mude os filtros.",
  all: "Todas", waitsFor: "Aguarda", since: "desde", until: "até", status: "Situação", workflow: "Fluxo", title: "Título",
  step: "Etapa", age: "Início", reason: "Motivo", search: "Buscar por título ou id", more: "Mostrar mais",
  open: "Abrir", cancel: "Cancelar", pause: "Pausar", resume: "Retomar", retry: "Repetir", start: "Iniciar", dryRun: "Simulação",
  confirmCancel: "Cancelar esta execução? Ela não poderá ser retomada.", yes: "Sim", no: "Não", selected: "selecionadas",
  overview: "Visão geral", steps: "Etapas", log: "Registro", audit: "Auditoria", raw: "Dados brutos", preflight: "Verificações", documents: "Documentos",
  input: "Entrada", output: "Saída", technical: "Detalhes técnicos", copyCurl: "Copiar como curl", copied: "Copiado",
  verify: "Verificar a cadeia", valid: "A cadeia está íntegra: {n} linhas.", invalid: "A cadeia está quebrada a partir da linha {n}.",
  noTechnical: "Seu token não mostra detalhes técnicos.", phases: "Tempo", work: "trabalho", waiting: "espera",
  whatNow: "O que fazer", oldValue: "Agora", send: "Enviar",
  checked: "Verificado", noIssues: "As verificações não acharam nada.", check: "Verificar",
  startTitle: "Iniciar “{name}”", version: "versão {n}", noWorkflows: "Nenhum fluxo", noWorkflowsHint: "Crie um pela API ou inicie o servidor com uma pasta de fluxos.",
  data: "Dados", steps_n: "{n} etapas", health: "Saúde", ready: "Pronto", notReady: "Não está pronto", loses: "Isto perde: {what}. Continuar?",
  keys: "Teclas: / busca · j k move · Enter abre · r recarrega · ? ajuda", notFound: "Não há nada aqui.", skip: "Ir para o conteúdo",
  language: "Idioma", filters: "Filtros", menu: "Páginas", created: "Criada", notAllowed: "Seu token não permite isto.", again: "Algo deu errado.",
  required: "obrigatório", add: "Adicionar", remove: "Remover", actor: "Quem", action: "O quê", time: "Quando", level: "Nível", message: "Mensagem",
  signers: "Signatários", done: "Feito.", passedOn: "Encaminhado. A página mostra quando estiver pronto.",
};
const STATUSES = {
  queued: ["Queued", "Na fila"], running: ["Running", "Em execução"], needs_review: ["Needs review", "Precisa de revisão"],
  ready: ["Ready", "Pronta"], sending: ["Sending", "Enviando"], sent: ["Sent", "Enviada"], signing: ["Signing", "Em assinatura"],
  signed: ["Signed", "Assinada"], paused: ["Paused", "Pausada"], completed: ["Completed", "Concluída"], failed: ["Failed", "Falhou"],
  canceled: ["Canceled", "Cancelada"],
};
const WAITS = {
  review: ["Corrections", "Correções"], approval: ["Approvals", "Aprovações"], signature: ["Signatures", "Assinaturas"],
  confirmation: ["Confirmations", "Confirmações"], pause: ["Paused", "Pausadas"], retry: ["Retry", "Nova tentativa"],
  timer: ["Timer", "Horário"], event: ["Event", "Evento"],
};
const STEPS = {
  pending: ["Pending", "Pendente"], running: ["Running", "Em andamento"], success: ["Done", "Concluída"],
  failure: ["Failed", "Falhou"], skipped: ["Skipped", "Pulada"],
};
const PHASES = {
  preflight: ["Checks", "Verificações"], trigger: ["Data", "Dados"], render: ["Render", "Geração"], save: ["Save", "Gravação"],
  delivery: ["Delivery", "Entrega"], signature: ["Signature", "Assinatura"],
};

const KEPT = "docg.language";
export const language = () => localStorage.getItem(KEPT) ?? (navigator.language.startsWith("pt") ? "pt-BR" : "en");
export function setLanguage(name) {
  localStorage.setItem(KEPT, name);
  location.reload();
}

const isPortuguese = () => language() === "pt-BR";
export function t(key, values = {}) {
  const text = (isPortuguese() ? pt : en)[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
const one = (table) => (name) => table[name]?.[isPortuguese() ? 1 : 0] ?? name;
export const statusName = one(STATUSES);
export const waitName = one(WAITS);
export const stepName = one(STEPS);
export const phaseName = one(PHASES);
export const ALL_STATUSES = Object.keys(STATUSES);

const format = (options) => (moment) =>
  moment ? new Intl.DateTimeFormat(language(), options).format(new Date(moment)) : "–";
export const when = format({ dateStyle: "medium", timeStyle: "short" });
export const exactly = format({ dateStyle: "short", timeStyle: "medium" });
export function ago(moment) {
  if (!moment) return "–";
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  const relative = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  for (const [unit, size] of [["day", 86_400], ["hour", 3_600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(Math.trunc(seconds), "second");
}
export function lasts(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1_000) return `${ms} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
}
