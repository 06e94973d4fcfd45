package router

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/router/api"
)

func TestFence(t *testing.T) {
	t.Parallel()
	with := func(r api.Route, change func(*api.Route)) api.Route {
		change(&r)
		return r
	}
	other := func(r *api.Route) { r.Owner = "canary/support-agent/run2" }
	forEver := func(r *api.Route) { r.LeaseMillis = 0 }
	for _, tt := range []struct {
		name   string
		before []api.Route
		wait   time.Duration
		route  api.Route
		held   int64 // revision named by the conflict; -1: accepted
	}{
		{"first", nil, 0, canaryRoute(500, 0), -1},
		{"newer revision", []api.Route{canaryRoute(500, 3)}, 0, canaryRoute(1500, 4), -1},
		{"revisions may skip", []api.Route{canaryRoute(500, 3)}, 0, canaryRoute(1500, 40), -1},
		{"renewal", []api.Route{canaryRoute(500, 3)}, 0, canaryRoute(500, 3), -1},
		{"renewal after the lease", []api.Route{canaryRoute(500, 3)}, time.Hour, canaryRoute(500, 3), -1},
		{"renewal with the default policy spelled out", []api.Route{canaryRoute(500, 3)}, 0, with(canaryRoute(500, 3), func(r *api.Route) { r.OnRollback = api.Evict }), -1},
		{"older revision", []api.Route{canaryRoute(500, 3)}, 0, canaryRoute(1500, 2), 3},
		{"older revision after the lease", []api.Route{canaryRoute(500, 3)}, time.Hour, canaryRoute(1500, 2), 3},
		{"orphan's renewal after the rollback", []api.Route{canaryRoute(500, 3), rollbackRoute(4, "")}, 0, canaryRoute(500, 3), 4},
		{"same revision, other content", []api.Route{canaryRoute(500, 3)}, 0, canaryRoute(501, 3), 3},
		{"same revision, other lease", []api.Route{canaryRoute(500, 3)}, 0, with(canaryRoute(500, 3), forEver), 3},
		{"another owner while live", []api.Route{canaryRoute(500, 3)}, 0, with(canaryRoute(500, 9), other), 3},
		{"another owner at the lease's last moment", []api.Route{canaryRoute(500, 3)}, time.Minute - 1, with(canaryRoute(500, 9), other), 3},
		{"another owner after the lease", []api.Route{canaryRoute(500, 3)}, time.Minute, with(canaryRoute(500, 0), other), -1},
		{"another owner at weight 0", []api.Route{canaryRoute(0, 3)}, 0, with(canaryRoute(500, 0), other), -1},
		{"another owner after a rollback", []api.Route{canaryRoute(500, 3), rollbackRoute(4, "")}, 0, with(canaryRoute(500, 0), other), -1},
		{"another owner, lease for ever", []api.Route{with(canaryRoute(500, 3), forEver)}, 1000 * time.Hour, with(canaryRoute(500, 9), other), 3},
		{"another owner's rollback while live", []api.Route{canaryRoute(500, 3)}, 0, with(rollbackRoute(9, ""), other), 3},
		{"straggler of the owner before", []api.Route{canaryRoute(500, 3), rollbackRoute(4, ""), with(canaryRoute(0, 0), other)}, 0, canaryRoute(500, 3), 0},
		{"straggler's last revision", []api.Route{canaryRoute(0, 3), with(canaryRoute(0, 0), other)}, 0, canaryRoute(0, 3), 0},
		{"owner before, with news", []api.Route{canaryRoute(0, 3), with(canaryRoute(0, 0), other)}, 0, canaryRoute(500, 4), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, clock := newTestRouter(t)
			for _, route := range tt.before {
				mustSet(t, r, route)
			}
			clock.advance(tt.wait)
			before, err := r.Observed(agent)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.SetRoute(agent, tt.route)
			if tt.held < 0 {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if got.Weight != tt.route.Weight || got.EffectiveWeight != tt.route.Weight || got.Owner != tt.route.Owner || got.LeaseExpired {
					t.Errorf("observed %+v", got)
				}
				return
			}
			conflict := conflictOf(err)
			if conflict == nil || conflict.Owner != before.Owner || conflict.Revision != tt.held {
				t.Fatalf("error %v, want a conflict at revision %d", err, tt.held)
			}
			after, _ := r.Observed(agent)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("a refused route changed something:\n%s", diff)
			}
		})
	}
}

func TestSetRouteRefusesWhatCantBe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*api.Route)
		code   string
	}{
		"weight below 0":               {func(r *api.Route) { r.Weight = -1 }, api.CodeInvalid},
		"weight above all":             {func(r *api.Route) { r.Weight = 10001 }, api.CodeInvalid},
		"weight without canary":        {func(r *api.Route) { r.Canary = "" }, api.CodeInvalid},
		"no stable":                    {func(r *api.Route) { r.Stable = "" }, api.CodeInvalid},
		"canary is stable":             {func(r *api.Route) { r.Canary = "v41" }, api.CodeInvalid},
		"no owner":                     {func(r *api.Route) { r.Owner = "" }, api.CodeInvalid},
		"revision below 0":             {func(r *api.Route) { r.Revision = -1 }, api.CodeInvalid},
		"lease below 0":                {func(r *api.Route) { r.LeaseMillis = -1 }, api.CodeInvalid},
		"lease that overflows":         {func(r *api.Route) { r.LeaseMillis = 1 << 62 }, api.CodeInvalid},
		"unknown policy":               {func(r *api.Route) { r.OnRollback = "shrug" }, api.CodeInvalid},
		"rollback with weight":         {func(r *api.Route) { r.Rollback = true }, api.CodeInvalid},
		"promoted with weight":         {func(r *api.Route) { r.Promoted = true }, api.CodeInvalid},
		"promoted with canary":         {func(r *api.Route) { r.Promoted, r.Weight = true, 0 }, api.CodeInvalid},
		"rollback without canary":      {func(r *api.Route) { r.Rollback, r.Weight, r.Canary = true, 0, "" }, api.CodeInvalid},
		"unknown canary":               {func(r *api.Route) { r.Canary = "v99" }, api.CodeUnknownVersion},
		"unknown canary at weight 0":   {func(r *api.Route) { r.Canary, r.Weight = "v99", 0 }, api.CodeUnknownVersion},
		"unknown stable":               {func(r *api.Route) { r.Stable = "v99" }, api.CodeUnknownVersion},
		"a stable that is not stable":  {func(r *api.Route) { r.Stable = "v40" }, api.CodeInvalid},
		"unknown stable in a rollback": {func(r *api.Route) { r.Stable, r.Weight, r.Rollback = "v99", 0, true }, api.CodeUnknownVersion},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := newTestRouter(t)
			route := canaryRoute(500, 1)
			tt.change(&route)
			if _, err := r.SetRoute(agent, route); refusalCode(err) != tt.code {
				t.Errorf("error %v, want a refusal with code %s", err, tt.code)
			}
			if o, _ := r.Observed(agent); o.Owner != "" {
				t.Errorf("a refused route is in force: %+v", o)
			}
		})
	}
	r, _ := newTestRouter(t)
	if _, err := r.SetRoute("nobody", canaryRoute(1, 1)); refusalCode(err) != api.CodeUnknownAgent {
		t.Errorf("unknown agent: %v", err)
	}
	gone := rollbackRoute(1, "")
	gone.Canary = "v99"
	if _, err := r.SetRoute(agent, gone); err != nil {
		t.Errorf("rollback of a canary that is gone: %v", err)
	}
}

func TestSameOwnerMayTakeAPromotionBack(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(10000, 1))
	mustSet(t, r, api.Route{Stable: "v42", Owner: canaryRoute(0, 0).Owner, Revision: 2, Promoted: true})
	o := mustSet(t, r, rollbackRoute(3, ""))
	if o.Stable != "v41" || o.EffectiveWeight != 0 {
		t.Errorf("observed %+v", o)
	}
}

func TestObservedLease(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	if o := mustSet(t, r, canaryRoute(500, 1)); o.LeaseRemainingMillis != 60_000 || o.LeaseExpired || o.EffectiveWeight != 500 {
		t.Errorf("at once: %+v", o)
	}
	clock.advance(59*time.Second + 999*time.Millisecond + time.Microsecond)
	if o, _ := r.Observed(agent); o.LeaseRemainingMillis != 1 || o.LeaseExpired {
		t.Errorf("just before: %+v", o)
	}
	clock.advance(time.Millisecond)
	want := api.Observed{
		Agent: agent, Stable: "v41", Canary: "v42", Weight: 500, Owner: "canary/support-agent/run1", Revision: 1,
		OnRollback: api.Evict, LeaseExpired: true, Versions: []string{"v40", "v41", "v42", "v43"},
	}
	if diff := cmp.Diff(want, r.AllObserved()[0]); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

func TestOwnersAreForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	for i := range 3 * maxOwners {
		route := canaryRoute(0, 5)
		route.Owner = string(rune('a'+i%26)) + string(rune('a'+i/26))
		mustSet(t, r, route)
	}
	if n := len(r.agents[agent].owners); n != maxOwners {
		t.Errorf("%d owners remembered, want %d", n, maxOwners)
	}
}
