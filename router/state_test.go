package router

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/router/api"
)

// restart is a new Router on the same state file, after pause.
func restart(t *testing.T, o Options, pause time.Duration) (*Router, *fakeClock) {
	t.Helper()
	clock := newFakeClock()
	clock.mono = 0
	clock.jumpWall(pause)
	o.Clock = clock
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r, clock
}

func stateOptions(t *testing.T) Options {
	o := testOptions(t, newFakeClock())
	o.StateFile = filepath.Join(t.TempDir(), "state.json")
	return o
}

func TestRestartKeepsPromotionRegistryAndFence(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	if _, err := r.PutVersion(agent, "v44", api.Version{URL: "http://127.0.0.1:1", Metadata: map[string]string{"model": "m"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutVersion("new-agent", "v1", api.Version{URL: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	route := canaryRoute(5000, 1)
	route.Canary = "v44"
	mustSet(t, r, route)
	mustSet(t, r, api.Route{Stable: "v44", Owner: route.Owner, Revision: 2, Promoted: true})
	agents := r.Agents()

	r, _ = restart(t, o, time.Hour)
	if diff := cmp.Diff(agents, r.Agents()); diff != "" {
		t.Errorf("registry (-before +after):\n%s", diff)
	}
	if d := mustDecide(t, r, Request{Key: "x"}); d.Version != "v44" {
		t.Errorf("after a promotion: %+v", d)
	}
	if _, err := r.SetRoute(agent, route); conflictOf(err) == nil {
		t.Errorf("straggler after the restart: %v, want a conflict", err)
	}
	if d, err := r.Decide("new-agent", Request{Key: "x"}); err != nil || d.Version != "v1" {
		t.Errorf("agent that was added: %+v, %v", d, err)
	}
}

func TestRestartBeginsColdOnStable(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	mustSet(t, r, canaryRoute(10000, 7))
	d := mustDecide(t, r, Request{Key: "x"})
	pin := string(r.AppendPin(nil, &d))

	r, _ = restart(t, o, time.Second)
	seen, err := r.Observed(agent)
	if err != nil || seen.Weight != 0 || seen.EffectiveWeight != 0 || seen.Owner != canaryRoute(0, 0).Owner || seen.Revision != 7 {
		t.Errorf("observed %+v, %v", seen, err)
	}
	if d := mustDecide(t, r, Request{Key: "y"}); d.Version != "v41" {
		t.Errorf("new conversation: %+v", d)
	}
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v42" || d.Reason != ByPin {
		t.Errorf("conversation of before: %+v", d)
	}
	thief := canaryRoute(500, 0)
	thief.Owner = "thief"
	if _, err := r.SetRoute(agent, thief); conflictOf(err) == nil {
		t.Errorf("another owner within the lease of before: %v", err)
	}
	if o := mustSet(t, r, canaryRoute(10000, 7)); o.EffectiveWeight != 10000 || o.LeaseRemainingMillis != 60_000 {
		t.Errorf("renewal: %+v", o)
	}
	if d := mustDecide(t, r, Request{Key: "y"}); d.Version != "v42" {
		t.Errorf("after the renewal: %+v", d)
	}

	r, clock := restart(t, o, time.Second)
	clock.advance(time.Minute)
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v41" || d.MigratedFrom != "v42" {
		t.Errorf("never renewed: %+v", d)
	}
	if _, err := r.SetRoute(agent, thief); err != nil {
		t.Errorf("another owner after the lease of before: %v", err)
	}
}

func TestRestartKeepsARollback(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{api.Evict, api.Drain} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			o := stateOptions(t)
			r, _ := restart(t, o, 0)
			mustSet(t, r, canaryRoute(10000, 1))
			d := mustDecide(t, r, Request{Key: "x"})
			pin := string(r.AppendPin(nil, &d))
			mustSet(t, r, rollbackRoute(2, policy))

			want := map[string]string{api.Evict: "v41", api.Drain: "v42"}[policy]
			r, clock := restart(t, o, DefaultDrainDeadline/2)
			if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != want {
				t.Errorf("after the restart: %+v", d)
			}
			clock.advance(DefaultDrainDeadline / 2)
			if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v41" {
				t.Errorf("past the deadline, which began before the restart: %+v", d)
			}
		})
	}
}

func TestSettingsWinWhereTheyChange(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	mustSet(t, r, api.Route{Stable: "v42", Owner: "o", Revision: 1, Promoted: true})
	settings := o.Agents[agent]
	settings.Stable = "v43"
	o.Agents = map[string]AgentOptions{agent: settings}
	r, _ = restart(t, o, 0)
	if d := mustDecide(t, r, Request{Key: "x"}); d.Version != "v43" {
		t.Errorf("stable changed in the settings: %+v", d)
	}
}

func TestStateFileThatIsNoGood(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ content, want string }{
		"empty":          {"", "EOF"},
		"cut":            {`{"format":1,"agents":{"support-`, "unexpected EOF"},
		"unknown key":    {`{"format":1,"agent":{}}`, "unknown field"},
		"two documents":  {`{"format":1,"agents":{}} {}`, "more than one document"},
		"another format": {`{"format":3,"agents":{}}`, "format 3"},
		"bad url":        {`{"format":1,"agents":{"support-agent":{"stable":"v41","versions":{"v9":{"url":"ftp://x"}},"epoch":0,"previous_epoch":0,"rollbacks":0}}}`, "url of version v9"},
		"bad route":      {`{"format":1,"agents":{"support-agent":{"stable":"v41","route":{"stable":"v41","weight":77777,"owner":"o","on_rollback":"evict"}}}}`, "weight 77777"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := stateOptions(t)
			if err := os.WriteFile(o.StateFile, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), o.StateFile) {
				t.Errorf("error %v, want the file and %q", err, tt.want)
			}
		})
	}
}

func TestRouteIsInForceThoughItCantBeSaved(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	o.StateFile = filepath.Join(t.TempDir(), "missing", "state.json")
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "could not be written") || !strings.Contains(err.Error(), o.StateFile) {
		t.Errorf("a router begins with a state file that can't be written: %v", err)
	}
	if err := os.Mkdir(filepath.Dir(o.StateFile), 0o700); err != nil {
		t.Fatal(err)
	}
	r, _ := restart(t, o, 0)
	if err := os.RemoveAll(filepath.Dir(o.StateFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutVersion(agent, "v50", api.Version{URL: "http://127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "is registered, but a restart would forget it") {
		t.Errorf("a version that can't be saved: %v", err)
	}
	if _, err := r.SetRoute(agent, canaryRoute(10000, 1)); err == nil || refusalCode(err) != "" {
		t.Errorf("error %v, want one about the file", err)
	}
	if d := mustDecide(t, r, Request{Key: "x"}); d.Version != "v42" {
		t.Errorf("decision %+v", d)
	}
	if err := os.Mkdir(filepath.Dir(o.StateFile), 0o700); err != nil {
		t.Fatal(err)
	}
	r.Tick()
	again, _ := restart(t, o, 0)
	if seen, _ := again.Observed(agent); seen.Revision != 1 {
		t.Errorf("observed %+v: want what Tick saved later", seen)
	}
	if names, err := os.ReadDir(filepath.Dir(o.StateFile)); err != nil || len(names) != 1 {
		t.Errorf("files %v, %v: want the state file alone", names, err)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	ok := api.Version{URL: "http://127.0.0.1:1"}
	for name, tt := range map[string]struct {
		agent, version string
		v              api.Version
		code           string
	}{
		"new version":         {agent, "v50", ok, ""},
		"same as settings":    {agent, "v41", api.Version{URL: "http://127.0.0.1:1/v41"}, ""},
		"against settings":    {agent, "v41", ok, api.CodeInUse},
		"name with capital":   {agent, "V50", ok, api.CodeInvalid},
		"agent with slash":    {"a/b", "v1", ok, api.CodeInvalid},
		"no url":              {agent, "v51", api.Version{}, api.CodeInvalid},
		"relative url":        {agent, "v51", api.Version{URL: "/x"}, api.CodeInvalid},
		"other scheme":        {agent, "v51", api.Version{URL: "file:///etc/passwd"}, api.CodeInvalid},
		"password in the url": {agent, "v51", api.Version{URL: "http://u:p@h/"}, api.CodeInvalid},
		"query in the url":    {agent, "v51", api.Version{URL: "http://h/?a=b"}, api.CodeInvalid},
	} {
		if _, err := r.PutVersion(tt.agent, tt.version, tt.v); (err == nil) != (tt.code == "") || refusalCode(err) != tt.code {
			t.Errorf("%s: error %v, want code %q", name, err, tt.code)
		}
	}
	route := canaryRoute(1, 1)
	route.Canary = "v50"
	mustSet(t, r, route)
	if err := r.DeleteVersion(agent, "v50"); refusalCode(err) != api.CodeInUse {
		t.Errorf("delete the canary: %v", err)
	}
	route.Weight, route.Rollback, route.Revision = 0, true, 2
	mustSet(t, r, route)
	if err := r.DeleteVersion(agent, "v50"); err != nil {
		t.Errorf("delete after the rollback: %v", err)
	}
	for version, code := range map[string]string{"v50": api.CodeUnknownVersion, "v41": api.CodeInUse, "v40": api.CodeInUse} {
		if err := r.DeleteVersion(agent, version); refusalCode(err) != code {
			t.Errorf("delete %s: %v, want %s", version, err, code)
		}
	}
	if err := r.DeleteVersion("nobody", "v1"); refusalCode(err) != api.CodeUnknownAgent {
		t.Errorf("delete of an unknown agent: %v", err)
	}
}

// TestDrainIsNoLongerThanTheSettings: a clock that was set back while the router was away does not lengthen what a rollback still allows.
func TestDrainIsNoLongerThanTheSettings(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	o.DrainDeadline = 10 * time.Minute
	r, _ := restart(t, o, 0)
	mustSet(t, r, canaryRoute(10000, 1))
	d := mustDecide(t, r, Request{Key: "x"})
	pin := string(r.AppendPin(nil, &d))
	mustSet(t, r, rollbackRoute(2, api.Drain))
	r, clock := restart(t, o, -time.Hour)
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v42" {
		t.Fatalf("while it drains: %+v", d)
	}
	clock.advance(11 * time.Minute)
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v41" {
		t.Errorf("an hour too long: %+v", d)
	}
}
