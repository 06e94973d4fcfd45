// Package metrics is the port to where the numbers come from: increments per version between two moments.
package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Provider samples one metrics source. Implementations are safe for concurrent use.
type Provider interface {
	// Sample returns the increments in (cursor, now] of every metric asked for, per version, from raw counters with resets
	// handled. With an empty cursor it only takes a position: every increment is zero. The same cursor twice gives the same
	// requests once: a lost answer loses nothing and a repeated one doubles nothing. A version without numbers has zero
	// increments. Errors: *Rejected for a metric the source can't give, ErrNewer for a cursor of a newer version, or a passing fault.
	Sample(ctx context.Context, request Request) (Samples, error)
}

// Request says what to sample.
type Request struct {
	Agent   string
	Stable  string
	Canary  string
	Metrics []Metric
	Cursor  json.RawMessage // of the Samples before; empty at first
}

// Metric is a metric with where to find it. Definition is nil for a preset.
type Metric struct {
	analysis.Metric
	Definition *rollout.Definition
}

// Samples are the increments since the cursor.
type Samples struct {
	At       time.Time       // up to when, by the source's clock
	Cursor   json.RawMessage // for the next Request; at most a few KiB
	Requests rollout.Requests
	Metrics  map[string]analysis.Sample // by metric name

	// Conversations are those that began, without testers': what the weight divides. Zero where the source does not count them for both
	// versions.
	Conversations rollout.Requests
	// Behind is how much older than At the newest numbers may be, as those of the last scrape. 0: they are as of At.
	Behind time.Duration
}

// ErrNewer is the error for a cursor that a newer build of a provider wrote: one that knows it will go on from there.
var ErrNewer = errors.New("the cursor is of a newer version")

// Rejected is the answer to a metric or agent that the source can never give. It is final.
type Rejected struct{ Reason string }

func (e *Rejected) Error() string { return e.Reason }

// Busy is a passing fault after which the source asks for a pause.
type Busy struct {
	RetryAfter time.Duration
	Err        error
}

func (e *Busy) Error() string { return fmt.Sprintf("%v (retry after %s)", e.Err, e.RetryAfter) }

// Unwrap is the fault itself.
func (e *Busy) Unwrap() error { return e.Err }
