package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/rollout"
)

var update = flag.Bool("update", false, "write golden files and the schema anew")

var versions = Overrides{Agent: "support-agent", Stable: "v41", Canary: "v42"}

const minimal = "canary_stages: [{name: a, weight: 0.1, duration: 1m}]\n"

// golden compares got with a file beside the tests.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

// problemLine is what every problem of a file looks like.
var problemLine = regexp.MustCompile(`^[^:]+:[1-9][0-9]*: .+`)

func TestFaultyFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d faulty files (%v), want at least 30", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.HasPrefix(name, "worker-"):
				_, err = ParseWorker(name, data, func(string) (string, bool) { return "hush", true })
			case strings.HasPrefix(name, "guard-"):
				_, err = ParseGuard(name, data, nil)
			case strings.HasPrefix(name, "gateway-"):
				_, err = ParseGateway(name, data, func(string) (string, bool) { return "hush, hush, hush, hush", true })
			default:
				_, err = Rollout(name, data, Overrides{})
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, line := range strings.Split(err.Error(), "\n") {
				if !problemLine.MatchString(line) || !strings.HasPrefix(line, name+":") {
					t.Errorf("want file:line: …, got %s", line)
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

func TestFileOfStagesIsCompletedByFlags(t *testing.T) {
	t.Parallel()
	const file = "../examples/canary-deployment-pipeline.yaml"

	_, err := LoadRollout(file, Overrides{})
	for _, flag := range []string{"--agent", "--stable", "--canary"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("without flags: got %v, want it to name %s", err, flag)
		}
	}

	got, err := LoadRollout(file, versions)
	if err != nil {
		t.Fatal(err)
	}
	stage := func(name string, weight rollout.Weight, duration time.Duration, requests int64, auto bool, checks ...string) rollout.Stage {
		return rollout.Stage{
			Name: name, Weight: weight, Duration: rollout.Duration(duration), MinRequests: requests, AutoRollback: auto,
			Approval: rollout.ApprovalNone, MaxHold: rollout.Duration(24 * time.Hour), OnHold: rollout.PolicyPause, Checks: checks,
		}
	}
	want := rollout.Spec{
		Agent: "support-agent", Stable: "v41", Canary: "v42", Criticality: rollout.Standard,
		Traffic: rollout.Traffic{Driver: "router", Target: "default", Lease: rollout.Duration(2 * time.Minute), OnRollback: rollout.Evict},
		Metrics: rollout.Metrics{
			Provider: "router", Target: "default", Interval: rollout.Duration(10 * time.Second),
			NoDataTimeout: rollout.Duration(10 * time.Minute), OnNoData: rollout.PolicyPause,
		},
		Analysis: rollout.Analysis{Method: "sequential", Alpha: 0.01, Beta: 0.05, Advance: "estimate", Floor: 0.001},
		RollbackCriteria: rollout.RollbackCriteria{
			MaxErrorIncrease: new(0.1), MaxSafetyViolations: new(0.0), MaxCompletionDrop: new(0.05), MaxLatencyIncrease: new(0.5),
		},
		Stages: []rollout.Stage{
			stage("initial", 500, 30*time.Minute, 50, true, "error_rate_increase < 0.10", "safety_violations == 0"),
			stage("low_traffic", 1500, time.Hour, 200, true, "error_rate_increase < 0.05", "safety_violations == 0", "p95_latency_increase < 0.30"),
			stage("medium_traffic", 5000, 2*time.Hour, 1000, true, "error_rate_increase < 0.03", "task_completion_regression < 0.02", "safety_violations == 0"),
			stage("full_rollout", 10000, 0, 0, false),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec differs (-want +got):\n%s", diff)
	}
}

func TestExamplesLoad(t *testing.T) {
	t.Parallel()
	total := map[string]time.Duration{"conversational.yaml": 37 * time.Hour, "safety-critical.yaml": 7 * 24 * time.Hour, "quick.yaml": 20 * time.Second}
	for _, name := range rolloutExamples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o Overrides
			if name == "canary-deployment-pipeline.yaml" {
				o = versions
			}
			spec, err := LoadRollout(filepath.Join("../examples", name), o)
			if err != nil {
				t.Fatal(err)
			}
			var sum time.Duration
			for _, stage := range spec.Stages {
				sum += stage.Duration.Std()
			}
			if want, ok := total[name]; ok && sum != want {
				t.Errorf("its stages take %s, want %s", sum, want)
			}
			rendersToItself(t, spec)
		})
	}
}

// rolloutExamples are the rollout files among the examples.
func rolloutExamples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if name := filepath.Base(f); !slices.Contains([]string{"worker.yaml", "gateway.yaml", "guard.yaml"}, name) {
			out = append(out, name)
		}
	}
	if len(out) < 4 {
		t.Fatalf("%d rollout files among the examples, want 4", len(out))
	}
	return out
}

// rendersToItself checks that what Render writes is the same Spec, read as JSON and as a rollout file.
func rendersToItself(t *testing.T, spec rollout.Spec) {
	t.Helper()
	raw, err := Render(spec)
	if err != nil {
		t.Fatal(err)
	}
	var back rollout.Spec
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, back); diff != "" {
		t.Errorf("rendered and read as JSON (-want +got):\n%s", diff)
	}
	if err := CheckSpec(back); err != nil {
		t.Errorf("rendered and checked: %v", err)
	}
	if spec.RollbackCriteria.MaxSafetyViolations == nil {
		return // null can't be told from absent in JSON
	}
	file, err := Rollout("rendered.json", raw, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, file); diff != "" {
		t.Errorf("rendered and read as a file (-want +got):\n%s", diff)
	}
}

func TestOverridesReplaceAndAreChecked(t *testing.T) {
	t.Parallel()
	got, err := Rollout("r.yaml", []byte("agent: a\nstable: v1\ncanary: v2\n"+minimal), Overrides{Canary: "v3"})
	if err != nil || got.Agent != "a" || got.Stable != "v1" || got.Canary != "v3" {
		t.Errorf("got %s %s %s, %v; want a v1 v3", got.Agent, got.Stable, got.Canary, err)
	}
	_, err = Rollout("r.yaml", []byte("agent: a\nstable: v1\ncanary: v2\n"+minimal), Overrides{Canary: "V 3", Stable: "v2"})
	want := `--canary: "V 3" is not a name, want ` + rollout.NamePattern
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRollbackCriteria(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, yaml string
		want       []string
	}{
		{"absent: the defaults", "", []string{"safety_violations <= 0", "error_rate_increase <= 0.1", "task_completion_rate_drop <= 0.05", "p95_latency_increase <= 0.5"}},
		{"some: those and safety", "rollback_criteria: {max_cost_increase: 0.2}\n", []string{"safety_violations <= 0", "cost_per_task_increase <= 0.2"}},
		{"safety set", "rollback_criteria: {max_safety_violations: 3}\n", []string{"safety_violations <= 3"}},
		{"safety switched off", "rollback_criteria: {max_safety_violations: null, max_error_increase: 1}\n", []string{"error_rate_increase <= 1"}},
		{"none but safety", "rollback_criteria: {}\n", []string{"safety_violations <= 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spec, err := Rollout("r.yaml", []byte(c.yaml+minimal), versions)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, spec.RollbackCriteria.Checks()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(spec.PromotionCriteria.Checks()) > 0 {
				t.Errorf("promotion criteria %v, want none", spec.PromotionCriteria.Checks())
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, yaml string }{
		{"never a lease", "traffic: {lease: 0}\n" + minimal},
		{"a stage that waits for requests", "canary_stages: [{name: a, weight: 0.1, duration: 0, min_requests: 5}]\n"},
		{"minutes with a fraction", "canary_stages: [{name: a, weight: 0.1, duration_minutes: 0.5}]\n"},
		{"the finest weight", "canary_stages: [{name: a, weight: 0.0001, duration: 1s}]\n"},
		{"equal weights", "canary_stages: [{name: a, weight: 0.1, duration: 1s}, {name: b, weight: 0.1, duration: 1s}]\n"},
		{"a bake", "canary_stages: [{name: a, weight: 0.1, duration: 1s}, {name: b, weight: 1, duration: 1h}]\n"},
		{"an alias", "canary_stages: [{name: a, weight: &w 0.1, duration: 1s}, {name: b, weight: *w, duration: 1s}]\n"},
		{"an end mark", minimal + "...\n"},
		{"a start mark and Windows line ends", "---\r\n" + strings.ReplaceAll(minimal, "\n", "\r\n")},
		{"a byte order mark", "\ufeff" + minimal},
		{"notices", "notify: {slack: {channel: C0123ABCD}, webhook: {}}\n" + minimal},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spec, err := Rollout("r.yaml", []byte(c.yaml), versions)
			if err != nil {
				t.Fatal(err)
			}
			rendersToItself(t, spec)
		})
	}
}

func TestHugeAndDeepFilesAreBounded(t *testing.T) {
	t.Parallel()
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		p := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [*" + strings.Join([]string{p, p, p, p, p, p, p, p, p}, ",*") + "]\n"
	}
	for name, text := range map[string]string{
		"too large":      minimal + "#" + strings.Repeat("x", maxSize),
		"bomb":           bomb + "freeze_when: *j\n",
		"bomb of stages": bomb + "canary_stages: *j\n",
		"cycle":          "canary_stages: &a [*a]\n",
		"cycle of keys":  "metrics: &a {definitions: {a: *a}}\n",
		"deep":           "notify: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n",
		"many problems":  strings.Repeat("k: 1\n", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := Rollout("r.yaml", []byte(text), versions)
			if err == nil {
				t.Fatal("no error")
			}
			if took := time.Since(began); took > 10*time.Second || len(err.Error()) > 64<<10 {
				t.Errorf("took %s and %d bytes to say so", took, len(err.Error()))
			}
		})
	}
}

func TestCheckSpecNamesPaths(t *testing.T) {
	t.Parallel()
	spec, err := Rollout("r.yaml", []byte(minimal), versions)
	if err != nil {
		t.Fatal(err)
	}
	spec.Canary, spec.Stages[0].Weight, spec.Metrics.Interval = "v 2", 0, 0
	var got []string
	problems, ok := errors.AsType[Problems](CheckSpec(spec))
	for _, p := range problems {
		got = append(got, p.Path)
		if p.Line != 0 || p.File != "" {
			t.Errorf("%v has a file or a line, want neither", p)
		}
	}
	if diff := cmp.Diff([]string{"canary", "metrics.interval", "canary_stages[0].weight"}, got); !ok || diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadRolloutNamesTheFile(t *testing.T) {
	t.Parallel()
	_, err := LoadRollout("testdata/no-such-file.yaml", versions)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "testdata/no-such-file.yaml") {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

// TestDocs: every complete rollout file in the docs can be used as it stands.
func TestDocs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	complete := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```yaml\n")[1:] {
			block, _, _ = strings.Cut(block, "\n```")
			if !strings.Contains(block, "canary_stages:") || !strings.Contains(block, "agent:") {
				continue
			}
			complete++
			if _, err := Rollout(fmt.Sprintf("%s block %d", file, i+1), []byte(block+"\n"), Overrides{}); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
	if complete < 2 {
		t.Errorf("%d rollout files in the docs, want those of the README and of docs/rollout-file.md at least", complete)
	}
}
