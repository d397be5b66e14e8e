//! Names of attributes, in one place.
//!
//! `gen_ai.*`, `error.*`, `http.*`, `server.*` and `network.*` are the OpenTelemetry semantic conventions of the version below: the last one that
//! holds the GenAI conventions, which moved to a repository of their own afterwards and are still in development there.
//! `loopd.*` is ours, for what the conventions have no name for.

/// Version of the OpenTelemetry semantic conventions that these names are taken from.
pub const VERSION: &str = "1.41.0";

pub const OPERATION_NAME: &str = "gen_ai.operation.name";
pub const OPERATION_CHAT: &str = "chat";
pub const OPERATION_EXECUTE_TOOL: &str = "execute_tool";
pub const OPERATION_INVOKE_AGENT: &str = "invoke_agent";

pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub const RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
pub const CONVERSATION_ID: &str = "gen_ai.conversation.id";
pub const AGENT_NAME: &str = "gen_ai.agent.name";

/// All tokens of the prompt, those that a cache read or wrote included.
pub const USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub const USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub const USAGE_CACHE_READ_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub const USAGE_CACHE_CREATION_TOKENS: &str = "gen_ai.usage.cache_creation.input_tokens";

pub const TOOL_NAME: &str = "gen_ai.tool.name";
/// The provider's id of the call.
pub const TOOL_CALL_ID: &str = "gen_ai.tool.call.id";
pub const TOOL_TYPE: &str = "gen_ai.tool.type";
/// The caller runs it.
pub const TOOL_TYPE_FUNCTION: &str = "function";
/// It runs on the agent's side: in the room, or on the host.
pub const TOOL_TYPE_EXTENSION: &str = "extension";

pub const ERROR_TYPE: &str = "error.type";
pub const HTTP_STATUS: &str = "http.response.status_code";
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";
pub const NETWORK_TRANSPORT: &str = "network.transport";
pub const NETWORK_TRANSPORT_TCP: &str = "tcp";

/// Number of the turn in its session, from 1.
pub const LOOPD_TURN: &str = "loopd.turn";
/// Number of the step in its turn, from 1.
pub const LOOPD_STEP: &str = "loopd.step";
/// Number of the attempt at a step's model call, from 1.
pub const LOOPD_ATTEMPT: &str = "loopd.attempt";
/// Why the turn is over, as the API's `stop_reason`; a limit with its name after a colon.
pub const LOOPD_STOP_REASON: &str = "loopd.stop_reason";
pub const LOOPD_COST_MICRO_USD: &str = "loopd.cost_micro_usd";
pub const LOOPD_REQUEST_DIGEST: &str = "loopd.request.digest";
pub const LOOPD_PROVIDER_REQUEST_ID: &str = "loopd.provider.request_id";
pub const LOOPD_FIRST_TOKEN_MS: &str = "loopd.first_token_ms";
pub const LOOPD_REASONING_TOKENS: &str = "loopd.usage.reasoning_tokens";
/// Longest time that an input waited in the queue before this step took it up.
pub const LOOPD_QUEUE_WAITED_MS: &str = "loopd.queue.waited_ms";
/// Inputs that wait in the queue now.
pub const LOOPD_QUEUE_LENGTH: &str = "loopd.queue.length";
/// When the next attempt is due.
pub const LOOPD_RETRY_AT: &str = "loopd.retry.at";
/// What was wrong with a final answer, when the model was asked again.
pub const LOOPD_OUTPUT_REJECTED: &str = "loopd.output_rejected";
/// Id of the event that recorded the call.
pub const LOOPD_CALL_ID: &str = "loopd.call.id";
/// What may be done about the call when its result is not known: `pure`, `keyed`, `room`, `once`, `client`.
pub const LOOPD_CALL_EFFECT: &str = "loopd.call.effect";
/// SHA-256 of the arguments as the model wrote them.
pub const LOOPD_CALL_ARGUMENTS_DIGEST: &str = "loopd.call.arguments_digest";
/// SHA-256 of the idempotency key that a host's call carries, at every attempt.
pub const LOOPD_CALL_KEY_DIGEST: &str = "loopd.call.idempotency_key_digest";
/// `completed`, `timed_out`, `interrupted`, `not_run`, `unknown`.
pub const LOOPD_CALL_OUTCOME: &str = "loopd.call.outcome";
/// From the model's asking to the start: a free place, a confirmation.
pub const LOOPD_CALL_WAITED_MS: &str = "loopd.call.waited_ms";
/// What the client said of a call that asked: `allow`, `deny`.
pub const LOOPD_CALL_VERDICT: &str = "loopd.call.verdict";
/// Bytes that a connection carried out of the room, and into it.
pub const LOOPD_NETWORK_BYTES_OUT: &str = "loopd.network.bytes_out";
pub const LOOPD_NETWORK_BYTES_IN: &str = "loopd.network.bytes_in";
/// Ids of the credentials that were placed in its requests.
pub const LOOPD_NETWORK_CREDENTIALS: &str = "loopd.network.credentials";
/// The walls around the session's room, where they are not namespaces: `microvm`.
pub const LOOPD_SANDBOX_ISOLATION: &str = "loopd.sandbox.isolation";
/// How the processor of its machine is made: `kvm`, `emulation`.
pub const LOOPD_SANDBOX_ACCELERATOR: &str = "loopd.sandbox.accelerator";
/// Longest time that the turn waited for a room.
pub const LOOPD_SANDBOX_WAITED_MS: &str = "loopd.sandbox.waited_ms";
/// The room had been suspended and went on where it was.
pub const LOOPD_SANDBOX_WOKEN: &str = "loopd.sandbox.woken";
/// Connections that have no span: more ended in one turn than the journal tells of.
pub const LOOPD_NETWORK_OMITTED: &str = "loopd.network.connections_omitted";
