package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

// source is a metrics source that makes up what happened under the weights in force. The same stretch of time brings the same numbers each time
// it is asked for.
type source struct {
	plane *plane
	now   func() time.Time
	start time.Time
	seed  uint64

	mu     sync.Mutex
	dice   *rand.PCG
	stream *world.Stream
}

func newSource(w *world.World, seed uint64, start time.Time, p *plane, now func() time.Time) *source {
	dice := rand.NewPCG(seed, 0)
	return &source{plane: p, now: now, start: start, seed: seed, dice: dice, stream: w.Stream(rand.New(dice))} //nolint:gosec // made-up traffic
}

// position is up to when the source has been read, in time since the start.
type position struct {
	At time.Duration `json:"at"`
}

// Sample is what happened since the position of the cursor. Errors: a cursor of another source.
func (s *source) Sample(_ context.Context, request metrics.Request) (metrics.Samples, error) {
	to := s.now()
	from := to
	if len(request.Cursor) > 0 {
		var p position
		if err := json.Unmarshal(request.Cursor, &p); err != nil {
			return metrics.Samples{}, fmt.Errorf("read the position in the simulated metrics: %w", err)
		}
		from = s.start.Add(p.At)
	}
	cursor, err := json.Marshal(position{At: max(to.Sub(s.start), from.Sub(s.start))})
	if err != nil {
		return metrics.Samples{}, fmt.Errorf("write the position in the simulated metrics: %w", err)
	}
	poll := s.happened(from, to)
	return metrics.Samples{
		At: to, Cursor: cursor, Metrics: poll.Samples,
		Requests:      rollout.Requests{Stable: poll.Requests.Stable, Canary: poll.Requests.Canary},
		Conversations: rollout.Requests{Stable: poll.Conversations.Stable, Canary: poll.Conversations.Canary},
	}, nil
}

// happened is all of [from, to), under whatever weights were in force.
func (s *source) happened(from, to time.Time) analysis.Poll {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum analysis.Poll
	for i, sp := range s.plane.spells(from, to) {
		since := sp.from.Sub(s.start)
		s.dice.Seed(s.seed, uint64(since)) //nolint:gosec // a seed has no sign
		poll := s.stream.Poll(0, since, sp.to.Sub(s.start), int(sp.weight))
		if sp.mirror > 0 {
			poll = mirrored(poll, s.stream.Poll(0, since, sp.to.Sub(s.start), int(sp.mirror)))
		}
		if i == 0 {
			sum = poll
			continue
		}
		sum = add(sum, poll)
	}
	return sum
}

// mirrored is what stable did under all of the traffic, with what the canary did under its share of copies. Copies begin no
// conversation.
func mirrored(all, copied analysis.Poll) analysis.Poll {
	all.Requests.Canary = copied.Requests.Canary
	for name, s := range all.Samples {
		s.Canary = copied.Samples[name].Canary
		all.Samples[name] = s
	}
	return all
}

// add is two polls as one.
func add(a, b analysis.Poll) analysis.Poll {
	a.Requests.Stable, a.Requests.Canary = a.Requests.Stable+b.Requests.Stable, a.Requests.Canary+b.Requests.Canary
	a.Conversations.Stable += b.Conversations.Stable
	a.Conversations.Canary += b.Conversations.Canary
	for name, s := range a.Samples {
		more := b.Samples[name]
		s.Stable, s.Canary = addCounts(s.Stable, more.Stable), addCounts(s.Canary, more.Canary)
		a.Samples[name] = s
	}
	return a
}

func addCounts(a, b analysis.Counts) analysis.Counts {
	a.N, a.X = a.N+b.N, a.X+b.X
	for i := range a.Buckets {
		if i < len(b.Buckets) {
			a.Buckets[i] += b.Buckets[i]
		}
	}
	if len(a.Buckets) == 0 {
		a.Buckets = b.Buckets
	}
	if b.HasValue {
		a.Value, a.HasValue = b.Value, true
	}
	return a
}
