// Package notify is the port to the humans: Slack, webhooks, the log.
package notify

import (
	"context"
	"encoding/json"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Notifier tells the humans. It is best effort: a caller bounds it and goes on without it.
// Implementations are safe for concurrent use across rollouts; the notices of one rollout come one after the other.
type Notifier interface {
	// Notify sends one notice. Sent again with the same Notice.ID (a retry), it must not reach the humans twice.
	Notify(ctx context.Context, request Request) (Thread, error)
}

// Request is one notice, and where the rollout's earlier ones went.
type Request struct {
	Notice  rollout.Notice `json:"notice"`
	Thread  Thread         `json:"thread,omitempty"`  // as returned for the notice before; empty at first
	Attempt int32          `json:"attempt,omitempty"` // 1 for the first try
}

// Thread remembers a rollout's parent message. It is opaque to all but the notifier, and small.
type Thread = json.RawMessage

// Busy is a passing fault after which the receiver asks for a pause.
type Busy struct {
	RetryAfter time.Duration
	Err        error
}

func (e *Busy) Error() string { return e.Err.Error() }

// Unwrap is the fault itself.
func (e *Busy) Unwrap() error { return e.Err }

// Rejected is final: an unknown channel, a revoked token.
type Rejected struct{ Err error }

func (e *Rejected) Error() string { return e.Err.Error() }

// Unwrap is the refusal itself.
func (e *Rejected) Unwrap() error { return e.Err }
