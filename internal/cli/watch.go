package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

func (a *app) watch() *cobra.Command {
	return &cobra.Command{
		Use: "watch AGENT", Short: "Follow a rollout to its end; Ctrl-C leaves it running", GroupID: groupSee,
		Args: one("AGENT"), ValidArgsFunction: a.completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := agentOf(args[0])
			if err != nil {
				return err
			}
			s, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer s.temporal.Close()
			return a.follow(cmd.Context(), s, &watched{agent: agent}, a.viewer(false))
		},
	}
}

// watched is a rollout being followed, and what has been seen of it.
type watched struct {
	agent string
	owner string // workflow ID and first run; empty until known. Another owner is another rollout.
	runID string // the latest of its runs
	all   bool   // show decisions from the first one on
	begun bool   // it has been looked at

	fresh   look              // the last that was the workflow's own answer
	last    *rollout.Decision // the last decision that was shown
	silent  time.Time         // since when nobody answers; zero: somebody does
	trouble string            // what was said about that
}

// seen is one look at a watched rollout, for a viewer.
type seen struct {
	look
	View
	fresh   []rollout.Decision // since the look before
	trouble string             // about looking itself; empty: none
}

// viewer shows what follow sees.
type viewer interface {
	show(seen) error
	// series reports whether the viewer wants View.Series.
	series() bool
	// end shows how it ended.
	end(seen) error
}

// follow looks at a rollout again and again until it has ended. When ctx is done first, it says that the rollout goes on.
func (a *app) follow(ctx context.Context, s *session, w *watched, show viewer) error {
	for {
		now, err := s.see(ctx, w, show.series())
		switch {
		case ctx.Err() != nil || errors.As(err, &interrupted{}):
			a.warn("no longer watching; the rollout of %s goes on. `starter watch %s` looks again, `starter abort %s` takes it back", w.agent, w.agent, w.agent)
			return interrupted{}
		case err != nil:
			return err
		case now.ended():
			if err := show.end(now); err != nil {
				return err
			}
			return outcome(now)
		}
		if err := show.show(now); err != nil {
			return err
		}
		_ = a.Clock.Sleep(ctx, pace(now.look.Status)) // the loop notices when ctx is done
	}
}

// outcome is how a watched rollout ended, as an error unless it was promoted.
func outcome(now seen) error {
	if how := now.cutOff(); how != "" {
		return fmt.Errorf("the rollout of %s did not end by itself: %s", now.look.Status.Agent, cutOffNote(how))
	}
	if phase := now.look.Status.Phase; phase != rollout.Promoted {
		return takenBack{phase}
	}
	return nil
}

// pace is how long to wait between looks: short for short stages, and never so long that a human waits for it.
func pace(st rollout.Status) time.Duration {
	return min(max(st.Duration.Std()/100, 300*time.Millisecond), 3*time.Second)
}

// see looks once. Once a rollout has been seen, Temporal's silence is only noted: a server may come back.
func (s *session) see(ctx context.Context, w *watched, series bool) (seen, error) {
	began := s.clock.Now()
	l, err := s.look(ctx, w.agent)
	if err == nil && w.owner != "" && l.Status.Owner != "" && l.Status.Owner != w.owner {
		l, err = s.lookAt(ctx, w.agent, w.runID) // the agent has another rollout now, so this one has ended
	}
	switch {
	case err != nil && w.begun && ctx.Err() == nil && (unreachable(err) || late(err)):
		w.trouble = fmt.Sprintf("Temporal at %s does not answer, trying on", s.address)
		return seen{look: w.fresh, View: View{Status: w.fresh.Status, Now: s.clock.Now()}, trouble: w.trouble}, nil
	case err != nil:
		return seen{}, err
	}
	w.begun, w.runID = true, l.RunID
	if w.owner == "" {
		w.owner = l.Status.Owner
	}
	trouble := s.silence(ctx, w, l, began)
	if l.Stale != "" && w.fresh.RunID != "" {
		l.Status = w.fresh.Status // more than Temporal keeps
	}
	now := seen{look: l, View: View{Status: l.Status, Now: s.clock.Now()}, trouble: trouble}
	if l.Stale != "" {
		return now, nil
	}
	w.fresh = l
	if series {
		now.Series = s.series(ctx, w.agent, l)
	}
	now.fresh = s.news(ctx, w, l)
	return now, nil
}

// news are the decisions since the last look. Without a worker's answer that is the last one at most.
func (s *session) news(ctx context.Context, w *watched, l look) []rollout.Decision {
	last := l.Status.Last
	if last == nil || (w.last != nil && same(*w.last, *last)) {
		return nil
	}
	var ds []rollout.Decision
	if s.query(ctx, workflows.WorkflowID(w.agent), l.RunID, workflows.QueryDecisions, &ds) != nil || len(ds) == 0 {
		ds = []rollout.Decision{*last}
	}
	if w.last != nil {
		if i := slices.IndexFunc(ds, func(d rollout.Decision) bool { return same(d, *w.last) }); i >= 0 {
			ds = ds[i+1:]
		}
	} else if !w.all {
		ds = ds[max(0, len(ds)-recent):]
	}
	if len(ds) > 0 {
		w.last = &ds[len(ds)-1]
	}
	return ds
}

// recent is how many earlier decisions are shown to somebody who comes later.
const recent = 5

func same(a, b rollout.Decision) bool {
	return a.At.Equal(b.At) && a.Kind == b.Kind && a.Phase == b.Phase && a.Reason == b.Reason
}

// patience is how long nobody may answer before it is said.
const patience = 2 * time.Second

// silence says why nobody answers for a rollout, after some patience. Empty: somebody does, or it is too early to tell.
func (s *session) silence(ctx context.Context, w *watched, l look, began time.Time) string {
	if l.Stale == "" {
		w.silent, w.trouble = time.Time{}, ""
		return ""
	}
	if w.silent.IsZero() {
		w.silent = began
	}
	if w.trouble != "" || s.clock.Now().Sub(w.silent) < patience {
		return w.trouble
	}
	polls, err := s.workerPolls(ctx, l.Queue)
	switch {
	case err != nil:
		w.trouble = l.Stale
	case polls:
		w.trouble = fmt.Sprintf("a worker polled task queue %s lately, but none answers for this rollout: does it still run? Its log says more", l.Queue)
	default:
		w.trouble = withoutWorker(l.Queue)
	}
	return w.trouble
}
