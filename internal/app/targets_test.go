package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// TestGatewaysOfTargets: the settings reach the driver and the provider, by list and by name.
func TestGatewaysOfTargets(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + " " + r.Header.Get("Authorization")
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	byName := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	token := config.NewSecret("hush")
	ds, err := drivers(map[string]config.TrafficTarget{
		"list": {Driver: "router", Gateways: []string{s.URL}, Token: token, Timeout: 5 * time.Second},
		"name": {Driver: "router", GatewaysDNS: byName, Token: token},
	})
	if err != nil {
		t.Fatal(err)
	}
	ps, err := providers(map[string]config.MetricsTarget{
		"list": {Provider: "router", Gateways: []string{s.URL}, Token: token, Timeout: 5 * time.Second},
		"name": {Provider: "router", GatewaysDNS: byName, Token: token},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"list": s.URL, "name": byName} {
		want := strings.TrimPrefix(address, "http://") + " Bearer hush"
		_, err := ds["router"][name].Read(t.Context(), rollout.Route{Agent: "support-agent"})
		if got := first(asked); err == nil || got != want {
			t.Errorf("the driver by %s asked %q (%v), want %q", name, got, err, want)
		}
		_, err = ps["router"][name].Sample(t.Context(), metrics.Request{Agent: "support-agent", Stable: "v41", Canary: "v42"})
		if got := first(asked); err == nil || got != want {
			t.Errorf("the provider by %s asked %q (%v), want %q", name, got, err, want)
		}
	}
	_, err = drivers(map[string]config.TrafficTarget{"both": {Driver: "router", Gateways: []string{s.URL}, GatewaysDNS: byName}})
	if err == nil || !strings.Contains(err.Error(), "both") {
		t.Errorf("list and name: error %v, want one that names the target", err)
	}
}

// first is what was asked first, if anything was.
func first(asked chan string) string {
	select {
	case text := <-asked:
		return text
	default:
		return ""
	}
}
