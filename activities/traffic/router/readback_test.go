package router_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic/router"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
)

// TestApplyBelievesOnlyWhatIsReadBack: a gateway that takes a route and goes on serving another weight has not restored anything.
func TestApplyBelievesOnlyWhatIsReadBack(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(*api.Observed){
		"weight":    func(o *api.Observed) { o.Weight, o.EffectiveWeight = 500, 500 },
		"effective": func(o *api.Observed) { o.EffectiveWeight = 500 },
		"honest":    func(*api.Observed) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var last api.Route
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					_ = json.NewDecoder(r.Body).Decode(&last)
				}
				seen := api.Observed{
					Agent: "support-agent", Stable: last.Stable, Canary: last.Canary, Owner: last.Owner, Revision: last.Revision,
					OnRollback: last.OnRollback, Rollback: last.Rollback, Versions: []string{"v41", "v42"},
				}
				lie(&seen)
				_ = json.NewEncoder(w).Encode(seen)
			}))
			t.Cleanup(s.Close)
			d, err := router.New([]string{s.URL}, "token", nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err = d.Apply(ctx, rollout.Route{
				Agent: "support-agent", Stable: "v41", Canary: "v42", Owner: "canary/support-agent/x", Revision: 2,
				OnRollback: rollout.Evict, Rollback: true,
			})
			if (err == nil) != (name == "honest") {
				t.Errorf("restore ended with %v", err)
			}
		})
	}
}
