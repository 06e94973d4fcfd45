package cli

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/aviary-rollouts/aviary/rollout"
)

var escapes = regexp.MustCompile(`\x1b\[\d*m`)

func views() map[string]View {
	normal := observing()
	paused := observing()
	paused.status.Paused = &rollout.Pause{By: "alice", Reason: "lunch", Since: noon.Add(-3 * time.Minute)}
	paused.status.Frozen, paused.status.SourceDown, paused.status.PlaneDown = "stable.error_rate > 0.20", "connection refused", "timeout"
	paused.status.Mismatch = "the canary got 12 % of about 900 new conversations lately at a weight of 25 %"
	paused.status.Hold, paused.status.Violation = noon.Add(-5*time.Minute), "p95_latency_increase is 198%, the limit is 50%"
	approval := observing()
	approval.status.Phase, approval.status.Evidence = rollout.AwaitingApproval, nil
	blocked := observing()
	blocked.status.Phase, blocked.status.Reason = rollout.RestoreBlocked, "a safety violation was reported by carol"
	back := observing()
	ended(back, rollout.RolledBack, "2 safety violations on the canary, the limit is 0")
	up := observing()
	ended(up, rollout.Promoted, "v42 passed every stage and is the stable version now")
	out := map[string]View{"begun": {Status: rollout.Status{Agent: "support-agent", Stable: "v41", Canary: "v42", Phase: rollout.Validating}, Now: noon, Notes: []string{"no worker on task queue aviary answers; this is the last that Temporal knows"}}}
	for name, r := range map[string]*run{"observing": normal, "paused": paused, "approval": approval, "blocked": blocked, "rolled_back": back, "promoted": up} {
		out[name] = View{Status: r.status, Series: r.series, Now: noon}
	}
	return out
}

func TestStatusAtEveryWidth(t *testing.T) {
	t.Parallel()
	for name, v := range views() {
		for _, columns := range []int{100, 80, 40} {
			text := Screen{Width: columns}.Status(v)
			golden(t, "status_"+name+"_"+strconv.Itoa(columns), text)
		}
		for columns := 20; columns <= 120; columns++ {
			plain := Screen{Width: columns}.Status(v)
			if strings.Contains(plain, "\x1b") {
				t.Fatalf("%s at %d columns has escapes without colour", name, columns)
			}
			coloured := Screen{Width: columns, Color: true}.Status(v)
			if diff := cmp.Diff(plain, escapes.ReplaceAllString(coloured, "")); diff != "" {
				t.Fatalf("%s at %d columns: colour changes the text:\n%s", name, columns, diff)
			}
			for line := range strings.Lines(plain) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
					t.Errorf("%s at %d columns has a line of %d: %q", name, columns, n, line)
				}
			}
		}
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	r := observing()
	ended(r, rollout.RolledBack, "error_rate_increase is 31%, the limit is 10%, and that it is above has an e-value of 412")
	for _, columns := range []int{120, 80, 40} {
		golden(t, "decisions_"+strconv.Itoa(columns), Screen{Width: columns}.Decisions(r.decisions, time.UTC)+"\n")
	}
	got := FormatDecision(r.decisions[2])
	if want := "11:41:00  advance         initial     5%     the stage is passed"; got != want {
		t.Errorf("FormatDecision: got %q, want %q", got, want)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ got, want string }{
		{number(0), "0"}, {number(12), "12"}, {number(1234567), "1,234,567"}, {number(-1234.4), "-1,234"}, {number(0.02134), "0.0213"},
		{number(1.5), "1.5"}, {number(9.999), "10"}, {number(99.96), "100"}, {number(1e-7), "1e-07"}, {number(math.NaN()), "·"}, {number(math.Inf(1)), "·"}, {number(3e20), "3e+20"},
		{percent(0.1), "10%"}, {percent(0.00013), "0.013%"}, {change(ptr(0.25)), "+25%"}, {change(ptr(-0.25)), "-25%"}, {change(ptr(0)), "0%"}, {change(nil), "·"},
		{inUnits("p95_latency", 0.0005), "500µs"}, {inUnits("p95_latency", 0.42), "420ms"}, {inUnits("time_to_first_token", 2), "2s"},
		{inUnits("cost_per_task", 0.0123), "$0.0123"}, {inUnits("tool_error_rate", 0.5), "50%"}, {inUnits("queue_depth", 17), "17"},
		{limit(rollout.Evidence{Check: "task_completion>=0.9", Metric: "task_completion_rate", Limit: 0.9}), ">= 90%"},
		{limit(rollout.Evidence{Check: "p95_latency < 2", Metric: "p95_latency", Limit: 2}), "< 2s"},
		{limit(rollout.Evidence{Check: "p95_latency_increase < 0.5", Metric: "p95_latency", Limit: 0.5}), "< 50%"},
		{limit(rollout.Evidence{Check: "what is this", Metric: "x", Limit: 3}), "3"},
		{noteOf(rollout.Evidence{Metric: "error_rate", Allowed: ptr(0.012)}), "up to 1.2% by the floor"},
		{span(-time.Second), "0s"}, {span(2500 * time.Millisecond), "2.5s"}, {span(90 * time.Second), "1m30s"}, {span(3*time.Hour + 29*time.Second), "3h"},
		{span(25 * time.Hour), "1d1h"}, {span(7 * 24 * time.Hour), "7d"},
		{bar(0, 4), "░░░░"}, {bar(0.01, 4), "█░░░"}, {bar(0.99, 4), "███░"}, {bar(1, 4), "████"}, {bar(7, 4), "████"}, {bar(0.5, 0), ""},
		{spark([]float64{0, 1, 2}, 2, 10), "▁▅█"}, {spark([]float64{0, 9, 1, 1}, 9, 2), "█▂"}, {spark([]float64{0, 0}, 0, 5), "▁▁"}, {spark(nil, 1, 5), ""},
		{cut("abcdef", 4), "abc…"}, {cut("abc", 3), "abc"}, {cut("abc", 0), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	t.Parallel()
	r := observing()
	r.status.Reason = "yes"
	r.status.Stage = "12"
	text, err := encode(r.status, "yaml")
	if err != nil {
		t.Fatal(err)
	}
	var fromYAML any
	if err := yaml.Unmarshal(text, &fromYAML); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	var got rollout.Status
	if err := json.Unmarshal(asJSON, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.status, got); diff != "" {
		t.Errorf("through YAML (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(string(text), "agent: support-agent\nstable: v41\n") {
		t.Errorf("the keys are not in order:\n%s", text)
	}
}

func TestTextOfOthersDoesNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	evil := "\x1b]0;owned\x07\x1b[2J\u202egnp\u009b1m"
	r := observing()
	r.status.Reason, r.status.Frozen, r.status.Stage = evil, evil, evil
	r.status.Paused = &rollout.Pause{By: evil, Reason: evil}
	r.status.Evidence[0].Note, r.status.Evidence[1].Check = evil, evil
	d := rollout.Decision{Kind: rollout.DecideRollback, By: evil, Reason: evil, Stage: evil, Evidence: r.status.Evidence}
	d.Evidence[0].Verdict = rollout.Violated
	over := r.status
	over.Phase = rollout.RolledBack
	for _, columns := range []int{40, 120, 300} {
		s := Screen{Width: columns}
		for what, text := range map[string]string{
			"status": s.Status(View{Status: r.status, Now: noon, Notes: []string{evil}}), "decisions": s.Decisions([]rollout.Decision{d}, time.UTC),
			"decision": strings.Join(s.Decision(d), "\n"), "line": FormatDecision(d), "outcome": Outcome(over), "brief": brief(r.status),
			"list": s.list([]row{{Agent: evil, Phase: evil, Stage: evil}}, noon),
		} {
			if strings.ContainsAny(text, "\x1b\x07\u202e\u009b") {
				t.Errorf("%s at %d columns lets escapes through: %q", what, columns, text)
			}
		}
	}
}
