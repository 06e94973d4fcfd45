package slack_test

import (
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestForeignTextIsHarmless(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, channelID)
	const evil = "<!channel> @here & <https://evil.example|click> ```out``` \n\x00 <@U123> @Everyone"
	n := r.Notice("a", 1)
	n.Decision.Reason, n.Decision.By = evil, evil
	n.Status.Reason, n.Status.Frozen, n.Status.SourceDown, n.Status.Stage = evil, evil, evil, evil
	n.Status.Paused = &rollout.Pause{By: evil, Reason: evil}
	n.Status.Evidence = []rollout.Evidence{{Check: evil, Verdict: rollout.Violated}}
	n.Agent, n.Stable, n.Canary = evil, evil, evil
	thread := notifyOnce(t, r, n, nil, 1)
	n.ID += "x"
	n.Decision.Evidence = n.Status.Evidence
	notifyOnce(t, r, n, thread, 1)
	messages, _ := w.snapshot()
	for _, m := range messages {
		// The header is plain text, in which Slack knows no markup; everything else is.
		_, marked, _ := strings.Cut(blocksText(t, m), `"type":"section"`)
		for _, text := range []string{m.Text, marked} {
			for _, bad := range []string{"<!", "<@", "<http", "@here", "@Everyone", "```out"} {
				if strings.Contains(text, bad) {
					t.Errorf("%q reached Slack in %s", bad, text)
				}
			}
			if !strings.Contains(text, "&lt;!channel&gt;") {
				t.Errorf("the text is not told: %s", text)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t) // refuses what Slack refuses
	r := receiver(t, w, channelID)
	n := r.Notice("a", 1)
	long := strings.Repeat("&é<", 5000)
	n.Decision.Reason, n.Status.Reason, n.Status.Stage, n.Agent = long, long, long, long
	value := 0.123456789
	for range 200 {
		n.Status.Evidence = append(n.Status.Evidence, rollout.Evidence{
			Check: long, Verdict: rollout.Met, Change: &value, EValue: &value, Stable: rollout.Arm{X: 1, N: 3, Estimate: &value},
		})
	}
	n.Status.Evidence = append(n.Status.Evidence, rollout.Evidence{Check: "the_bad_one", Verdict: rollout.Violated})
	notifyOnce(t, r, n, nil, 1)
	messages, _ := w.snapshot()
	text := blocksText(t, messages[0])
	for _, want := range []string{"the_bad_one", "more```", "1/3 = 0.1235", "+12.3%"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "&l…") || strings.Contains(text, "&am…") {
		t.Error("a code is cut apart")
	}
}

func TestWhatToDoNext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*rollout.Status)
		want   string
		not    string
	}{
		{"observing", func(*rollout.Status) {}, "`starter status a` · `starter abort a`", "approve"},
		{"approval", func(s *rollout.Status) { s.Phase = rollout.AwaitingApproval }, "`starter approve a`", "resume"},
		{"paused", func(s *rollout.Status) { s.Paused = &rollout.Pause{By: "ann"} }, "`starter resume a`", "approve"},
		{"blocked", func(s *rollout.Status) { s.Phase = rollout.RestoreBlocked }, "`starter retry a`", "abort"},
		{"over", func(s *rollout.Status) { s.Phase = rollout.Promoted }, "`starter status a`", "abort"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t)
			r := receiver(t, w, channelID)
			n := r.Notice("a", 1)
			tt.change(&n.Status)
			if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: n, Attempt: 1}); err != nil {
				t.Fatal(err)
			}
			messages, _ := w.snapshot()
			text := blocksText(t, messages[0])
			if !strings.Contains(text, tt.want) || strings.Contains(text, tt.not) {
				t.Errorf("want %q and no %q in %s", tt.want, tt.not, text)
			}
		})
	}
}

// TestEvidenceIsWhole: interval, e-value and requests to go are told where there are any, and take no room where there are none.
func TestEvidenceIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, channelID)
	n := r.Notice("a", 1)
	change, lower, upper, eValue, needed := 0.31, 0.12, 0.55, 412.5, 5400.0
	n.Status.Mismatch = "the canary got 1 % at a weight of 5 %"
	n.Status.Evidence = []rollout.Evidence{
		{Check: "error_rate_increase < 0.1", Verdict: rollout.Undecided, Change: &change, Lower: &lower, Upper: &upper, EValue: &eValue, Needed: &needed},
		{Check: "safety_violations == 0", Verdict: rollout.Met},
		{Check: "tool_error_rate_increase < 0.1", Verdict: rollout.Met, Limit: 0.1, Allowed: &lower},
	}
	notifyOnce(t, r, n, nil, 1)
	messages, _ := w.snapshot()
	text := blocksText(t, messages[0])
	for _, want := range []string{"+31%", "between +12% and +55%", "412.5", "requests to go", "5400", "0.1 and the floor", "in doubt: the canary got 1 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	n.ID += "x"
	n.Status.Evidence = n.Status.Evidence[1:]
	notifyOnce(t, r, n, nil, 1)
	messages, _ = w.snapshot()
	if text := blocksText(t, messages[len(messages)-1]); strings.Contains(text, "to go") || strings.Contains(text, "interval") {
		t.Errorf("empty columns in %s", text)
	}
}
