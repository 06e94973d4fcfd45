package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestCommands(t *testing.T) {
	t.Parallel()
	running := func(f *fake) { f.runs, f.worker, f.polled = []*run{observing()}, true, noon }
	idle := func(f *fake) { f.runs = []*run{observing()} }
	promoted := func(f *fake) { running(f); ended(f.runs[0], rollout.Promoted, "passed") }
	terminated := func(f *fake) {
		idle(f)
		f.runs[0].how, f.runs[0].status.Ended = enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED, noon
	}
	for _, tt := range []struct {
		name  string
		world func(*fake)
		args  string
		code  int
		out   []string
		err   []string
	}{
		{"help", nil, "", 0, []string{"See:", "Decide:", "Rollout files:", "TEMPORAL_ADDRESS", "Exit codes"}, nil},
		{"version", nil, "version", 0, []string{"v0.0.0-test"}, nil},
		{"version by flag", nil, "--version", 0, []string{"starter v0.0.0-test\n"}, nil},
		{"help about a command", nil, "help token", 0, []string{"starter token"}, nil},
		{"help about nothing", nil, "help tokn", 2, nil, []string{`unknown command "tokn"`, "token"}},
		{"help about too much", nil, "help token lint", 2, nil, []string{`unknown command "lint" for "starter token"`}},
		{"version as JSON", nil, "version -o json", 0, []string{`"version": "v0.0.0-test"`}, nil},
		{"completion", nil, "completion bash", 0, []string{"starter"}, nil},
		{"typo", nil, "statu", 2, nil, []string{`unknown command "statu"`, "Did you mean", "status"}},
		{"unknown flag", nil, "status x --frob", 2, nil, []string{"unknown flag: --frob", "--help"}},
		{"flags that exclude each other", nil, "start x.yaml --watch --wait", 2, nil, []string{"watch wait", "--help"}},
		{"no number", nil, "plan x.yaml --rps 20/s", 2, nil, []string{`invalid argument "20/s" for "--rps" flag: invalid syntax`}},
		{"no time", nil, "plan x.yaml --window 5", 2, nil, []string{`invalid argument "5" for "--window" flag: missing unit in duration "5"`}},
		{"none of several", nil, "calibrate x.yaml", 2, nil, []string{"want one of --prometheus, --worker, --csv"}},
		{"no agent", nil, "abort", 2, nil, []string{"want one AGENT"}},
		{"bad agent", nil, "status Support", 2, nil, []string{`agent "Support"`, rollout.NamePattern}},
		{"bad output", nil, "list -o xml", 2, nil, []string{`--output "xml"`, "table, json or yaml"}},
		{"bad limit", nil, "list --limit 0", 2, nil, []string{"--limit 0", "1 to 1000"}},
		{"bad profile", nil, "list --profile nope", 2, nil, []string{"nope"}},
		{"status", running, "status support-agent", 0, []string{"observing", "2/4 half", "25%", "18m of 30m", "e-value"}, nil},
		{"status by workflow ID", running, "status canary/support-agent", 0, []string{"2/4 half"}, nil},
		{"status as JSON", running, "status support-agent -o json", 0, []string{`"phase": "observing"`, `"weight": 0.25`, `"observed": "18m"`}, nil},
		{"status as YAML", running, "status support-agent -o yaml", 0, []string{"phase: observing\n", "weight: 0.25\n"}, nil},
		{"status with a link", running, "status support-agent --ui http://ui/", 0, []string{"http://ui/namespaces/default/workflows/canary%2Fsupport-agent\n"}, nil},
		{"status without a worker", idle, "status support-agent", 0, []string{"observing", "half", "25%", "no worker on task queue aviary answers"}, nil},
		{"status of the terminated", terminated, "status support-agent", 0, []string{"terminated before the rollout had ended"}, nil},
		{"status of the promoted", promoted, "status support-agent", 0, []string{"promoted", "took 50m"}, nil},
		{"status of nobody", running, "status other", 1, nil, []string{`no rollout of agent "other"`, "starter list"}},
		{"server gone", func(f *fake) { f.down = true }, "status x", 1, nil, []string{"does not answer", "TEMPORAL_ADDRESS", "localhost:7233"}},
		{"list", running, "list", 0, []string{"support-agent", "v41 → v42", "2/4 half", "25%", "50m ago"}, nil},
		{"list without a worker", idle, "list", 0, []string{"support-agent", "v41 → v42", "observing", "half", "25%"}, nil},
		{"list of the terminated", terminated, "list", 0, []string{"terminated"}, nil},
		{"list as JSON", running, "list -o json", 0, []string{`"agent": "support-agent"`, `"run_id": "run-1"`}, nil},
		{"empty list", nil, "list", 0, []string{"no rollouts", "starter start"}, nil},
		{"decisions", running, "decisions support-agent", 0, []string{"the stage is passed", "✓ safety_violations <= 0"}, nil},
		{"history", running, "history support-agent -o json", 0, []string{`"kind": "advance"`, `"check": "error_rate_increase < 0.1"`}, nil},
		{"decisions without a worker", idle, "decisions support-agent", 1, nil, []string{"no worker on task queue aviary answers"}},
		{"pause", running, "pause support-agent --by alice --reason lunch", 0, []string{"support-agent is paused", "observing", "2/4 half"}, nil},
		{"promote", running, "promote support-agent --full -o json", 0, []string{`"via": "update"`, `"by": "sam"`, `"phase": "observing"`}, nil},
		{"full is for promote only", running, "approve support-agent --full", 2, nil, []string{"unknown flag"}},
		{"refused", func(f *fake) { running(f); f.refuse = "not paused" }, "resume support-agent", 1, nil, []string{"resume support-agent: not paused"}},
		{"abort without a worker", idle, "abort support-agent", 0, []string{"no worker answered", "as a signal"}, nil},
		{"abort without a worker as JSON", idle, "abort support-agent -o json", 0, []string{`"via": "signal"`}, nil},
		{"approve without a worker", idle, "approve support-agent", 1, nil, []string{"no worker answered within 5s", "ask again"}},
		{"abort too late", promoted, "abort support-agent", 1, nil, []string{"the rollout has ended: promoted"}},
		{"abort of the terminated", terminated, "abort support-agent", 1, nil, []string{"closed as terminated"}},
		{"abort of nobody", running, "abort other", 1, nil, []string{`no rollout of agent "other"`}},
		{"watch the promoted", promoted, "watch support-agent", 0, []string{"passed\nv42 of support-agent was promoted after 50m\n"}, nil},
		{"watch the terminated", terminated, "watch support-agent", 1, nil, []string{"did not end by itself", "terminated"}},
		{"watch nobody", running, "watch other", 1, nil, []string{`no rollout of agent "other"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			if tt.world != nil {
				tt.world(f)
			}
			got := command(t.Context(), f, &script{now: noon}, nil, strings.Fields(tt.args)...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", got.code, tt.code, got.out, got.err)
			}
			has(t, "stdout", got.out, tt.out...)
			has(t, "stderr", got.err, tt.err...)
			if len(tt.err) == 0 && got.err != "" {
				t.Errorf("stderr is not empty: %s", got.err)
			}
		})
	}
}

func TestAskTellsWhoAndWhy(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}, worker: true}
	clock := &script{now: noon}
	command(t.Context(), f, clock, nil, "promote", "support-agent", "--full", "--by", "alice", "--reason", "it is fine")
	command(t.Context(), f, clock, nil, "pause", "support-agent")
	want := []rollout.Ask{{By: "alice", Reason: "it is fine", Full: true}, {By: "sam"}}
	if diff := cmp.Diff(want, f.asks); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestOnlyWhatRestrainsIsLeftAsSignal(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}}
	for _, s := range rollout.Signals() {
		command(t.Context(), f, &script{now: noon}, nil, string(s), "support-agent")
	}
	if diff := cmp.Diff([]string{"abort", "violation", "pause"}, f.signals); diff != "" {
		t.Errorf("signals left (-want +got):\n%s", diff)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	f := &fake{polled: noon}
	name := file(t, good)
	clock := &script{now: noon}
	first := command(t.Context(), f, clock, nil, "start", name, "--task-queue", "other", "--canary", "v43", "-o", "json")
	var got started
	if err := json.Unmarshal([]byte(first.out), &got); err != nil || first.code != 0 {
		t.Fatalf("start: code %d, %v\n%s%s", first.code, err, first.out, first.err)
	}
	want := started{WorkflowID: "canary/support-agent", RunID: "run-a", Type: "Canary", TaskQueue: "other"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}
	if f.queue != "other" || f.runs[0].status.Canary != "v43" {
		t.Errorf("started on %q with canary %q", f.queue, f.runs[0].status.Canary)
	}
	second := command(t.Context(), f, clock, nil, "start", name)
	if second.code != ExitFailed || len(f.runs) != 1 {
		t.Errorf("the second start: code %d, %d runs", second.code, len(f.runs))
	}
	has(t, "stderr", second.err, "already has a rollout", "canary/support-agent", "starter status support-agent")
}

func TestStartWithoutWorkerSaysSo(t *testing.T) {
	t.Parallel()
	for name, polled := range map[string]time.Time{"never": {}, "long ago": noon.Add(-4 * time.Minute)} {
		got := command(t.Context(), &fake{polled: polled}, &script{now: noon}, nil, "start", file(t, good))
		if got.code != 0 {
			t.Errorf("%s: exit code %d", name, got.code)
		}
		has(t, "stderr", got.err, "no worker polls task queue aviary")
	}
}

func TestDryRunStartsNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	noDial := func(p *Process) {
		p.Dial = func(context.Context, client.Options) (Temporal, error) { return nil, errors.New("dialed") }
	}
	got := command(t.Context(), f, &script{now: noon}, noDial, "start", file(t, good), "--dry-run")
	if got.code != 0 || len(f.runs) != 0 {
		t.Fatalf("code %d, %d runs: %s", got.code, len(f.runs), got.err)
	}
	golden(t, "dry_run", got.out)
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestOutputThatIsLostIsAFailure: whoever writes the output into a file learns that it is not there.
func TestOutputThatIsLostIsAFailure(t *testing.T) {
	t.Parallel()
	ok := file(t, good)
	for _, args := range [][]string{
		{"lint", ok}, {"lint", ok, "-o", "json"}, {"render", ok}, {"render", ok, "-o", "yaml"}, {"version"}, {"--help"},
		{"start", ok, "--dry-run"}, {"plan", ok, "--rps", "10"}, {"simulate", ok, "--runs", "1"}, {"completion", "bash"},
	} {
		got := command(t.Context(), &fake{}, &script{now: noon}, func(p *Process) { p.Out = full{} }, args...)
		if got.code != ExitFailed || !strings.Contains(got.err, "no space left on device") {
			t.Errorf("%v: exit code %d, stderr %q; want a failure that says why", args, got.code, got.err)
		}
	}
}

// TestLintLive: what a worker found is told beside what the file alone tells, and what would not work is a failure.
func TestLintLive(t *testing.T) {
	t.Parallel()
	ok, bad := file(t, good), file(t, strings.Replace(good, "weight: 0.5,", "weight: 5,", 1))
	fine := rollout.Remark{Level: rollout.RemarkOK, Path: "traffic", Text: "istio cluster answers"}
	doubt := rollout.Remark{Level: rollout.RemarkWarning, Path: "metrics", Text: "no request in 20s"}
	fault := rollout.Remark{Level: rollout.RemarkError, Path: "traffic.object.rule", Text: "no http route weighted"}
	for name, c := range map[string]struct {
		remarks  []rollout.Remark
		polled   time.Time
		args     []string
		code     int
		out, err []string
		checks   int
	}{
		"all well":      {[]rollout.Remark{fine, doubt}, noon, []string{ok}, 0, []string{": ok, 3 stages", "  ok       traffic: istio cluster answers", "  warning  metrics: no request"}, nil, 1},
		"a fault":       {[]rollout.Remark{fine, fault}, noon, []string{ok}, ExitFailed, []string{"  ok       traffic"}, []string{ok + ": traffic.object.rule: no http route", "1 of 1 rollouts would not work"}, 1},
		"as JSON":       {[]rollout.Remark{fault}, noon, []string{ok, "-o", "json"}, ExitFailed, []string{`"ok": false`, `"level": "error"`}, nil, 1},
		"a bad file":    {[]rollout.Remark{fine}, noon, []string{ok, bad}, ExitUsage, []string{"traffic: istio"}, []string{bad + ":6: "}, 1},
		"no worker":     {nil, time.Time{}, []string{ok}, ExitFailed, nil, []string{"no worker polls task queue aviary", "--task-queue"}, 0},
		"another queue": {[]rollout.Remark{fine}, noon, []string{ok, "--task-queue", "other"}, 0, []string{": ok"}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{remarks: c.remarks, polled: c.polled}
			got := command(t.Context(), f, &script{now: noon}, nil, append([]string{"lint", "--live"}, c.args...)...)
			if got.code != c.code || len(f.checks) != c.checks || len(f.runs) > 0 {
				t.Errorf("exit code %d, want %d; %d checks, want %d; %d rollouts", got.code, c.code, len(f.checks), c.checks, len(f.runs))
			}
			has(t, "stdout", got.out, c.out...)
			has(t, "stderr", got.err, c.err...)
		})
	}
	if got := command(t.Context(), &fake{}, &script{now: noon}, nil, "lint", "--task-queue", "x", ok); got.code != ExitUsage {
		t.Errorf("--task-queue alone: exit code %d", got.code)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	bad := file(t, strings.Replace(good, "weight: 0.5,", "weight: 5,", 1))
	ok := file(t, good)
	for _, tt := range []struct {
		name string
		args []string
		code int
		out  []string
		err  []string
	}{
		{"lint good", []string{"lint", ok}, 0, []string{": ok, 3 stages for support-agent"}, nil},
		{"lint both", []string{"lint", ok, bad}, 2, []string{": ok, 3 stages"}, []string{bad + ":6: canary_stages[1].weight: ", "1 of 2 files can't be used"}},
		{"lint as JSON", []string{"lint", bad, "-o", "json"}, 2, []string{`"ok": false`, `:6: canary_stages[1].weight: `}, nil},
		{"lint nothing", []string{"lint"}, 2, nil, []string{"want at least one FILE"}},
		{"lint what is not there", []string{"lint", "nope.yaml"}, 2, nil, []string{"nope.yaml", "no such file"}},
		{"start a bad file", []string{"start", bad}, 2, nil, []string{bad + ":6: canary_stages[1].weight: "}},
		{"render a bad file", []string{"render", bad}, 2, nil, []string{bad + ":6: "}},
		{"bad override", []string{"start", ok, "--canary", "V 42"}, 2, nil, []string{"--canary"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			got := command(t.Context(), f, &script{now: noon}, nil, tt.args...)
			if got.code != tt.code || len(f.runs) > 0 {
				t.Errorf("exit code %d, want %d; %d runs", got.code, tt.code, len(f.runs))
			}
			has(t, "stdout", got.out, tt.out...)
			has(t, "stderr", got.err, tt.err...)
		})
	}
}

func TestRenderIsTheWorkflowsInput(t *testing.T) {
	t.Parallel()
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "render", file(t, good), "--agent", "other")
	var spec rollout.Spec
	if err := json.Unmarshal([]byte(got.out), &spec); err != nil || got.code != 0 {
		t.Fatalf("code %d, %v: %s%s", got.code, err, got.out, got.err)
	}
	if spec.Agent != "other" || len(spec.Stages) != 3 || spec.Stages[1].Weight != 5000 {
		t.Errorf("rendered %+v", spec)
	}
}

func TestConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		env           []string
		args          []string
		address, spac string
	}{
		{"nothing set", nil, nil, "localhost:7233", "default"},
		{"environment", []string{"TEMPORAL_ADDRESS=t:1", "TEMPORAL_NAMESPACE=prod"}, nil, "t:1", "prod"},
		{"flags win", []string{"TEMPORAL_ADDRESS=t:1", "TEMPORAL_NAMESPACE=prod"}, []string{"--address", "u:2", "--namespace", "dev"}, "u:2", "dev"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var dialed client.Options
			got := command(t.Context(), nil, &script{now: noon}, func(p *Process) {
				p.Env = append(p.Env, tt.env...)
				p.Dial = func(ctx context.Context, o client.Options) (Temporal, error) {
					if until, ok := ctx.Deadline(); !ok || time.Until(until) > 5*time.Second {
						t.Error("dialing may take longer than 5 s")
					}
					dialed = o
					return nil, errors.New("connection refused")
				}
			}, append([]string{"list"}, tt.args...)...)
			if got.code != ExitFailed || dialed.HostPort != tt.address || dialed.Namespace != tt.spac {
				t.Errorf("code %d, dialed %s %s, want %s %s", got.code, dialed.HostPort, dialed.Namespace, tt.address, tt.spac)
			}
			has(t, "stderr", got.err, "no Temporal server answers at "+tt.address, "TEMPORAL_ADDRESS", "connection refused")
		})
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	s := &session{address: "t:1", namespace: "prod"}
	for want, err := range map[string]error{
		`no namespace "prod": set TEMPORAL_NAMESPACE`: serviceerror.NewNamespaceNotFound("prod"),
		"TEMPORAL_API_KEY":                            serviceerror.NewPermissionDenied("no", ""),
		"try again shortly":                           serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "busy"),
		"is it up":                                    context.DeadlineExceeded,
		"doing it: quite broken":                      errors.New("quite broken"),
	} {
		has(t, "error", s.explain("doing it", err).Error(), want)
	}
}

func TestCompletionOffersRunningAgents(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}}
	got := command(t.Context(), f, &script{now: noon}, nil, "__complete", "abort", "")
	has(t, "stdout", got.out, "support-agent\n")
	if !slices.ContainsFunc(f.listings, func(q string) bool { return strings.Contains(q, "ExecutionStatus = 'Running'") }) {
		t.Errorf("asked for %q", f.listings)
	}
}
