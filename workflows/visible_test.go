package workflows

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestSearchAttributesWhereKnown(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.attributes = known
			var attributes, memos []string
			w.env.OnUpsertTypedSearchAttributes(anything).Return(nil).Run(func(args mock.Arguments) {
				set := args.Get(0).(temporal.SearchAttributes)
				agent, _ := set.GetKeyword(attributeAgent)
				phase, _ := set.GetKeyword(attributePhase)
				weight, _ := set.GetFloat64(attributeWeight)
				attributes = append(attributes, agent+" "+phase+" "+number(weight))
			}).Maybe()
			w.env.OnUpsertMemo(anything).Return(nil).Run(func(args mock.Arguments) {
				memo := args.Get(0).(map[string]any)
				memos = append(memos, string(memo[MemoPhase].(rollout.Phase))+" "+memo[MemoWeight].(rollout.Weight).String())
			}).Maybe()
			w.run(spec())
			wantMemos := []string{"validating 0%", "shifting 0%", "observing 5%", "shifting 5%", "observing 25%", "shifting 25%",
				"promoting 100%", "promoted 100%"}
			if d := cmp.Diff(wantMemos, memos); d != "" {
				t.Errorf("memos (-want +got):\n%s", d)
			}
			if known == (len(attributes) == 0) {
				t.Errorf("attributes %q", attributes)
			}
			if known && (attributes[0] != "support-agent shifting 0" || attributes[len(attributes)-1] != "support-agent promoted 1") {
				t.Errorf("attributes %q", attributes)
			}
		})
	}
}

// A continued run must go on setting the attributes without asking again.
func TestSearchAttributesAreCarried(t *testing.T) {
	t.Parallel()
	sets := 0
	split := follow(t, func(w *world, since time.Duration) {
		w.attributes = true
		w.env.SetContinueAsNewSuggested(true)
		w.env.OnUpsertTypedSearchAttributes(anything).Return(nil).Run(func(mock.Arguments) {
			if since > 0 {
				sets++
			}
		}).Maybe()
	})
	if split.runs < 2 || sets == 0 {
		t.Errorf("%d attributes set after the first of %d runs", sets, split.runs)
	}
}

func TestDetails(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	change, estimate, needed, eValue, lower, upper := 0.25, 0.031, 120.0, 3.5, 0.1, 0.5
	s := rollout.Status{
		Agent: "support-agent", Stable: "v41", Canary: "v42", Phase: rollout.Observing, Weight: 500, Stage: "initial", Stages: 4,
		Paused: &rollout.Pause{By: "ada", Reason: "a | b", Since: at}, Hold: at, Frozen: "both bad", Mismatch: "the canary got 1 % at a weight of 5 %",
		Observed: rollout.Duration(10*time.Minute + 200*time.Millisecond), Duration: rollout.Duration(30 * time.Minute),
		Requests: rollout.Requests{Stable: 2300, Canary: 120},
		Evidence: []rollout.Evidence{
			{Check: "error_rate_increase < 0.10", Verdict: rollout.Undecided, Stable: rollout.Arm{N: 2300, X: 60},
				Canary: rollout.Arm{N: 120, Estimate: &estimate}, Change: &change, Needed: &needed, EValue: &eValue, Lower: &lower, Upper: &upper},
			{Check: "safety_violations == 0", Verdict: rollout.NoData},
		},
		Last: &rollout.Decision{Kind: rollout.DecidePause, By: "ada", At: at, Reason: "paused by ada"},
	}
	want := "**support-agent: v41 → v42** · observing · canary 5% · stage 1/4 `initial`\n" +
		"\n**Paused** by ada since 2026-03-02T09:00:00Z: a \\| b\n" +
		"\nObserved 10m of 30m; 120 canary and 2300 stable requests\n" +
		"\nHeld back: since 2026-03-02T09:00:00Z\n" +
		"\nFrozen: both bad\n" +
		"\nIn doubt: the canary got 1 % at a weight of 5 %\n" +
		"\n| check | verdict | stable | canary | change | e-value | requests to go |\n|---|---|---|---|---|---|---|\n" +
		"| error_rate_increase &lt; 0.10 | undecided | 60 of 2300 | 0.031 (n=120) | 25%, between +10% and +50% | 3.5 | 120 |\n" +
		"| safety_violations == 0 | no_data | – | – | – | – | – |\n" +
		"\nLast decision: pause by ada at 2026-03-02T09:00:00Z: paused by ada\n"
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(details(s), "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDetailsAreShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var shown []string
	w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		w.at(time.Second, func() {
			value, err := w.env.QueryWorkflow("details")
			var s string
			if err == nil {
				err = value.Get(&s)
			}
			if err != nil {
				t.Error(err)
			}
			shown = append(shown, s)
		})
		return healthy(now, r)
	}
	w.env.RegisterWorkflowWithOptions(func(ctx workflow.Context, s rollout.Spec) (rollout.Status, error) {
		err := workflow.SetQueryHandler(ctx, "details", func() (string, error) { return workflow.GetCurrentDetails(ctx), nil })
		if err != nil {
			return rollout.Status{}, err
		}
		return Canary(ctx, encoded(t, s), encoded(t, nil))
	}, workflow.RegisterOptions{Name: "Shown"})
	w.env.ExecuteWorkflow("Shown", spec())
	if len(shown) != 2 || !strings.Contains(shown[0], "observing · canary 5%") || !strings.Contains(shown[1], "observing · canary 25%") {
		t.Errorf("shown %q", shown)
	}
}
