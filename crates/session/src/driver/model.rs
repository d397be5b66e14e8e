//! The driver and its model: the question, the answer, the errors and the waits between attempts.

use super::{Driver, Halt};
use crate::asking::{Asking, Question};
use crate::ledger::Draft;
use crate::request::{self, Ground};
use crate::{answer, resume, turn};
use loopd_agent_loop::{Answer as LoopAnswer, Input};
use loopd_domain::event::{EventBody, RequestOutcome, RetryStatus, SessionFault};
use loopd_domain::fold::{IllegalEvent, OpenTurn};
use loopd_domain::session::LimitName;
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{ThreadId, conversation::Conversation};
use loopd_models::retry::{self, Decision};
use loopd_models::{Answer, ErrorClass, ModelError};
use std::time::Duration;
use tokio::time::Instant;

/// The first limit of the turn that leaves no room for another request.
pub fn spent(turn: &OpenTurn) -> Option<LimitName> {
    // The loop and the driver's own timer keep the clock.
    turn.settings.limits.reached(turn.steps, turn.output_tokens, 0, turn.cost)
}

impl Driver {
    /// Puts the request's start into the draft. `None` when the model cannot be asked; the draft says why.
    pub(super) fn question(
        &self,
        draft: &mut Draft,
        step: u32,
        attempt: u32,
    ) -> Result<Option<Question>, IllegalEvent> {
        let spec = &self.ledger.session.agent.spec;
        let resolved = match self.parts.models.resolve(&spec.model) {
            Ok(resolved) => resolved,
            Err(fault) => {
                draft.push(session_error("model_request_failed_error", fault.to_string(), RetryStatus::Exhausted))?;
                return Ok(None);
            }
        };
        let mut conversation: Conversation = self.ledger.conversation.clone();
        draft.events.iter().for_each(|e| conversation.apply(e));
        let ground = Ground {
            session: &self.ledger.session.id,
            spec,
            tools: self.ledger.specs.clone(),
            schema: draft.fold.turn.as_ref().and_then(|t| t.settings.output_schema.as_ref()),
        };
        let request = request::build(ground, &resolved.name, conversation.into_messages());
        let body = resolved.provider.body(&request);
        draft.push(EventBody::ModelRequestStart {
            step,
            attempt,
            model: resolved.full_id.clone(),
            request_digest: request::digest(&body),
            messages: request.messages.len() as u32,
        })?;
        Ok(Some(Question { resolved, request, body, attempt }))
    }

    /// Sends a question whose start is on disk, or on its way there.
    pub(super) async fn ask(&mut self, question: Question) {
        let masking = self.masking().await;
        let base = self.ledger.fold().last_seq;
        let asking = Asking::start(question, self.channel.clone(), self.ledger.ids(), base, masking);
        if self.flight.is_some() {
            asking.withhold();
        }
        self.asking = Some(asking);
    }

    pub(super) async fn on_answer(&mut self, outcome: Result<Answer, ModelError>) -> Result<(), Halt> {
        self.land_before_answer().await?;
        let Some(asking) = self.asking.take() else { return Ok(()) };
        match outcome {
            Ok(answer) => self.on_answered(asking, answer).await,
            Err(fault) => self.on_failed(asking, fault).await,
        }
    }

    async fn on_answered(&mut self, asking: Asking, answer: Answer) -> Result<(), Halt> {
        asking.show_rest();
        let masking = self.masking().await;
        let mut draft = self.ledger.draft();
        let (ids, first_token_ms) = {
            let seen = asking.seen.lock();
            (seen.ids.clone(), seen.first_token_ms)
        };
        let mut has_text = false;
        for (index, block) in answer.blocks.iter().enumerate() {
            let Some(body) = answer::event_of(block, &self.ledger.tools, answer.stop) else { continue };
            has_text |= matches!(body, EventBody::AgentMessage { .. });
            let id = ids.get(&index).cloned().unwrap_or_else(|| self.new_event_id());
            draft.push_as(id, masking.answer(body))?;
        }
        let outcome = RequestOutcome::Answered { stop: answer.stop, stop_details: answer.stop_details.clone() };
        let cost = self.end_request(&mut draft, &asking, outcome, answer.usage, first_token_ms, Some(&answer))?;
        fail::fail_point!("session::before_intents");
        self.unshown = self.flight.is_some().then_some(asking);
        self.take_answer(&draft).await?;
        fail::fail_point!("session::after_intents");
        self.rooms_lost = 0;
        if !self.begun {
            return self.begin().await;
        }
        let Some(turn) = self.ledger.fold().turn.as_ref() else { return Ok(()) };
        let input = Input::Answered {
            answer: LoopAnswer {
                stop: answer.stop,
                calls: resume::calls(&self.ledger, turn),
                has_text,
                output_tokens: answer.usage.output_tokens,
                cost,
                stop_details: answer.stop_details,
                output_error: resume::output_error(&self.ledger, turn),
            },
        };
        self.tell(input).await
    }

    async fn on_failed(&mut self, asking: Asking, fault: ModelError) -> Result<(), Halt> {
        tracing::warn!(session = %self.id(), model = %asking.resolved.full_id, attempt = asking.attempt, %fault, "a model request failed");
        let mut draft = self.ledger.draft();
        let first_token_ms = asking.seen.lock().first_token_ms;
        let outcome = RequestOutcome::Failed {
            class: fault.class.as_str().to_owned(),
            message: fault.message.clone(),
            status: fault.status,
        };
        self.end_request(&mut draft, &asking, outcome, fault.usage, first_token_ms, None)?;
        let kind = error_type(fault.class);
        // 53 bits of an unpredictable id make a fraction of 1.
        let chance = (self.ledger.ids().ulid() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64;
        match retry::decide(asking.attempt, &fault, chance) {
            Decision::Retry { after_ms } => {
                draft.push(session_error(kind, fault.message, RetryStatus::Retrying))?;
                draft.push(EventBody::StatusRescheduled { retry_at: draft.at.plus_ms(after_ms) })?;
                draft.push(EventBody::ThreadStatusRescheduled {
                    session_thread_id: ThreadId::primary(self.id()),
                    agent_name: self.ledger.session.agent.spec.name.clone(),
                })?;
                self.commit(&draft).await?;
                self.rest_since = Instant::now();
                self.retry = Some((self.rest_since + Duration::from_millis(after_ms), asking.attempt + 1));
                Ok(())
            }
            Decision::GiveUp => {
                draft.push(session_error(kind, fault.message, RetryStatus::Exhausted))?;
                self.commit(&draft).await?;
                self.model_failed().await
            }
        }
    }

    /// Tells the loop that there will be no answer; without a loop the turn ends here.
    async fn model_failed(&mut self) -> Result<(), Halt> {
        if self.begun {
            return self.tell(Input::ModelFailed).await;
        }
        let mut draft = self.ledger.draft();
        turn::rest(&mut draft, &self.ledger.session, loopd_domain::session::StopReason::RetriesExhausted, None)?;
        self.rest_with(draft).await
    }

    pub(super) async fn on_retry(&mut self, attempt: u32) -> Result<(), Halt> {
        self.retry = None;
        let mut draft = self.ledger.draft();
        let Some(turn) = draft.fold.turn.as_ref() else { return Ok(()) };
        let (step, settings) = (turn.steps + 1, turn.settings.clone());
        turn::run(&mut draft, &self.ledger.session, &settings)?;
        let question = self.question(&mut draft, step, attempt)?;
        match question {
            Some(question) => {
                self.commit_question(draft).await?;
                self.ask(question).await;
                self.go_on().await
            }
            None => {
                self.commit(&draft).await?;
                self.model_failed().await
            }
        }
    }

    /// Ends the request that `asking` was, with what had arrived of its answer.
    pub(super) fn cut(&self, draft: &mut Draft, asking: &Asking) -> Result<(), IllegalEvent> {
        let seen = asking.seen.lock();
        for (id, body) in seen.partial_messages() {
            draft.push_as(id, body)?;
        }
        turn::cut_request(draft, seen.first_token_ms)
    }

    fn end_request(
        &self,
        draft: &mut Draft,
        asking: &Asking,
        outcome: RequestOutcome,
        usage: Usage,
        first_token_ms: Option<u64>,
        answer: Option<&Answer>,
    ) -> Result<Option<MicroUsd>, IllegalEvent> {
        let Some(request) = draft.fold.turn.as_ref().and_then(|t| t.request.clone()) else { return Ok(None) };
        let cost = asking.resolved.price.map(|price| price.of(&usage));
        draft.push(EventBody::ModelRequestEnd {
            model_request_start_id: request.id,
            is_error: !matches!(outcome, RequestOutcome::Answered { .. }),
            model_usage: usage,
            outcome,
            cost,
            first_token_ms,
            provider_request_id: answer.and_then(|a| a.request_id.clone()),
            response_model: answer.and_then(|a| a.model.clone()),
        })?;
        Ok(cost)
    }
}

pub fn session_error(kind: &str, message: String, retry_status: RetryStatus) -> EventBody {
    EventBody::SessionError {
        error: SessionFault { kind: kind.to_owned(), message, retry_status, mcp_server_name: None },
    }
}

/// The wire's name for a class of model errors.
fn error_type(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::RateLimited => "model_rate_limited_error",
        ErrorClass::Overloaded => "model_overloaded_error",
        ErrorClass::Billing => "billing_error",
        _ => "model_request_failed_error",
    }
}
