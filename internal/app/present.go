package app

import (
	"context"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// PresentQuery asks a metrics target what two versions do now.
type PresentQuery struct {
	Target         config.MetricsTarget
	Agent          string
	Stable, Canary string
	Metrics        []analysis.Metric
	Definitions    map[string]rollout.Definition // of metrics that are no presets
	Window         time.Duration                 // to look at: of the past where the source keeps it, else to wait for
	Step           time.Duration                 // of a poll at least
	Now            time.Time
}

// Present reads what two versions do now, poll by poll. The text says what was read. Prometheus tells of the window before now, and of stable only: a
// canary that has no rollout has no traffic. Other sources keep no past, so it takes the window to ask them.
func Present(ctx context.Context, q PresentQuery) ([]analysis.Poll, string, error) {
	if q.Target.Provider == config.ProviderPrometheus {
		h, read, err := Past(ctx, PastQuery{
			Target: q.Target, Agent: q.Agent, Version: q.Stable, Metrics: q.Metrics, Definitions: q.Definitions,
			From: q.Now.Add(-q.Window), To: q.Now, Step: q.Step,
		})
		if err != nil {
			return nil, "", err
		}
		return pollsOf(h), read, nil
	}
	const name = "the target"
	all, err := providers(map[string]config.MetricsTarget{name: q.Target})
	if err != nil {
		return nil, "", err
	}
	polls, err := watchNow(ctx, all[q.Target.Provider][name], q)
	return polls, fmt.Sprintf("%d polls in %s", len(polls), q.Window), err
}

// watchNow samples a source until the window is over.
func watchNow(ctx context.Context, p metrics.Provider, q PresentQuery) ([]analysis.Poll, error) {
	request := metrics.Request{Agent: q.Agent, Stable: q.Stable, Canary: q.Canary}
	for _, m := range q.Metrics {
		of := metrics.Metric{Metric: m}
		if d, ok := q.Definitions[m.Name]; ok {
			of.Definition = &d
		}
		request.Metrics = append(request.Metrics, of)
	}
	s, err := p.Sample(ctx, request)
	if err != nil {
		return nil, err
	}
	n := max(1, int(q.Window/max(q.Step, time.Millisecond)))
	ticker := time.NewTicker(q.Window / time.Duration(n))
	defer ticker.Stop()
	var out []analysis.Poll
	for i := range n {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
		request.Cursor = s.Cursor
		if s, err = p.Sample(ctx, request); err != nil {
			return nil, err
		}
		out = append(out, analysis.Poll{
			Number: int64(i), Requests: analysis.Requests{Stable: s.Requests.Stable, Canary: s.Requests.Canary}, Samples: s.Metrics,
		})
	}
	return out, nil
}

// pollsOf is a history of stable as polls.
func pollsOf(h *calibration.History) []analysis.Poll {
	out := make([]analysis.Poll, h.Polls)
	for k := range out {
		p := analysis.Poll{Number: int64(k), Samples: map[string]analysis.Sample{}}
		for i := range h.Units {
			u := &h.Units[i]
			p.Requests.Stable += u.Requests.At(k)
			for m := range u.Metrics {
				c, of := &u.Metrics[m], h.Metrics[m].Name
				s := p.Samples[of]
				s.Bounds = c.Bounds
				s.Stable.N += c.N.At(k)
				s.Stable.X += c.X.At(k)
				if s.Stable.Buckets == nil && len(c.Buckets) > 0 {
					s.Stable.Buckets = make([]float64, len(c.Buckets))
				}
				for b := range c.Buckets {
					s.Stable.Buckets[b] += c.Buckets[b].At(k)
				}
				p.Samples[of] = s
			}
		}
		out[k] = p
	}
	return out
}
