package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/aviary-rollouts/aviary/rollout"
)

const progressVersion = 1

// progress is all that watching remembers. It travels in two ways: within a slice in the heartbeat, for the next attempt, and
// from slice to slice as the cursor, then without Slice.
type progress struct {
	Version int             `json:"v"`
	Source  json.RawMessage `json:"source,omitempty"` // the provider's cursor; empty: no position taken yet
	Engine  json.RawMessage `json:"engine,omitempty"` // the statistics
	Poll    int64           `json:"poll"`             // number of the last poll
	Weight  rollout.Weight  `json:"weight"`           // that the engine's stage has
	Change  *change         `json:"change,omitempty"` // the last of the weight; nil: none since this is kept

	Sampled time.Time        `json:"sampled,omitzero"`     // when the source last answered
	Behind  rollout.Duration `json:"behind,omitempty"`     // how much older than that its newest numbers may have been
	Ticked  time.Time        `json:"ticked,omitzero"`      // when it was last asked
	Silent  rollout.Duration `json:"silent"`               // watched in a row without a canary request, or without an answer
	Failed  int              `json:"failed,omitempty"`     // polls in a row without an answer
	Failing time.Time        `json:"failing,omitzero"`     // since when
	Kept    time.Time        `json:"kept,omitzero"`        // when the route was last found or put in order
	Plane   time.Time        `json:"plane,omitzero"`       // since when the data plane does not answer
	PutBack time.Time        `json:"put_back_at,omitzero"` // when somebody else's change was last put back
	Slice   *slice           `json:"slice,omitempty"`
}

// slice is what has been seen in the slice under way.
type slice struct {
	Started    time.Time        `json:"started"` // of the first attempt
	Observed   rollout.Duration `json:"observed"`
	Requests   rollout.Requests `json:"requests"`
	Before     rollout.Requests `json:"before"` // in the poll that closes the weight before, and in those that are not compared
	Polls      int64            `json:"polls"`
	Series     []rollout.Point  `json:"series,omitempty"`
	SourceDown string           `json:"source_down,omitempty"`
	PlaneDown  string           `json:"plane_down,omitempty"`
	PutBack    string           `json:"put_back,omitempty"`
	Uncounted  bool             `json:"uncounted,omitempty"` // it was told that samples could not be counted
}

// change is when the canary's weight became another one, or came back after a lease that had run out. By then it is in force: the moment is that
// of the first slice under it.
type change struct {
	To rollout.Weight `json:"to"`
	At time.Time      `json:"at"`
}

// errNewer is the error of check for what a newer worker wrote.
var errNewer = errors.New("it is of a newer version")

func (p *progress) check() error {
	if p.Version > progressVersion {
		return fmt.Errorf("%w: %d, this worker knows %d", errNewer, p.Version, progressVersion)
	}
	if p.Version != progressVersion {
		return fmt.Errorf("it has version %d, want %d", p.Version, progressVersion)
	}
	return nil
}

// readCursor reads the cursor of the slice before. An empty one is a beginning.
func readCursor(raw json.RawMessage) (progress, error) {
	p := progress{Version: progressVersion}
	if len(raw) == 0 {
		return p, nil
	}
	p, err := readProgress(raw)
	p.Slice = nil
	return p, err
}

// remembered is what the attempt before left in its heartbeat, else what the slice before left in the cursor.
func remembered(ctx context.Context, cursor json.RawMessage) (progress, error) {
	if !activity.HasHeartbeatDetails(ctx) {
		p, err := readCursor(cursor)
		if err != nil {
			return p, unreadable("the cursor of the slice before", err)
		}
		return p, nil
	}
	var raw json.RawMessage
	err := activity.GetHeartbeatDetails(ctx, &raw)
	if err != nil {
		return progress{}, unreadable("the heartbeat of the attempt before", err)
	}
	p, err := readProgress(raw)
	if err != nil {
		return p, unreadable("the heartbeat of the attempt before", err)
	}
	return p, nil
}

// readProgress reads what check approves of. The version comes first: what a newer worker wrote may have any form.
func readProgress(raw json.RawMessage) (progress, error) {
	var p progress
	var of struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(raw, &of); err != nil {
		return p, err
	}
	p.Version = of.Version
	if err := p.check(); err != nil {
		return p, err
	}
	return p, json.Unmarshal(raw, &p)
}

// begin begins or resumes a slice. A clock that went back may shorten what was observed, and never stretches a slice.
func (p *progress) begin(request rollout.ObserveRequest, now time.Time) {
	if p.Slice == nil {
		p.Slice = &slice{Started: now, SourceDown: request.SourceDown, PlaneDown: request.PlaneDown}
	}
	// A canary that gets copies is as cold as one that gets users.
	if w := request.Route.Weight; p.Change == nil && (p.Weight != w || request.Route.Mirror > 0) || p.Change != nil && p.Change.To != w {
		p.Change = &change{To: w, At: now}
		p.Kept = now // it was set just now
	}
	moments := []*time.Time{&p.Slice.Started, &p.Sampled, &p.Ticked, &p.Failing, &p.Kept, &p.Plane, &p.PutBack}
	if p.Change != nil {
		moments = append(moments, &p.Change.At)
	}
	for _, t := range moments {
		if t.After(now) {
			*t = now
		}
	}
}

// longestGap is how far apart two polls may be for the time between them to count as watched.
func longestGap(interval time.Duration) time.Duration { return max(3*interval, 3*time.Second) }

// watched is how much of the time since a moment counts as watched at now: all of it, or nothing after a gap.
func watched(since, now time.Time, interval time.Duration) time.Duration {
	d := now.Sub(since)
	if since.IsZero() || d <= 0 || d > longestGap(interval) {
		return 0
	}
	return d
}

// later is the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
