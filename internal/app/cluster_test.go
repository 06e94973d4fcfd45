package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/config"
)

// TestClustersOfTargets: the settings reach the drivers of Kubernetes.
func TestClustersOfTargets(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: %q}}, {name: other, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u}],\n"+
		"contexts: [{name: here, context: {cluster: c, user: u}}, {name: other, context: {cluster: other, user: u}}], current-context: other}\n", s.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	target := func(driver string) config.TrafficTarget {
		return config.TrafficTarget{Driver: driver, Kubeconfig: config.Path(path), Context: "here", Namespaces: []string{"agents"}}
	}
	ds, err := drivers(map[string]config.TrafficTarget{"mesh": target(config.DriverIstio), "routes": target(config.DriverGatewayAPI)})
	if err != nil {
		t.Fatal(err)
	}
	for driver, want := range map[string]string{
		config.DriverIstio:      "/apis/networking.istio.io/v1/namespaces/agents/virtualservices",
		config.DriverGatewayAPI: "/apis/gateway.networking.k8s.io/v1/namespaces/agents/httproutes",
	} {
		name := map[string]string{config.DriverIstio: "mesh", config.DriverGatewayAPI: "routes"}[driver]
		_, err := ds[driver][name].List(t.Context())
		if got := first(asked); err == nil || got != want {
			t.Errorf("%s asked for %q (%v), want %q", driver, got, err, want)
		}
	}
	wrong := target(config.DriverIstio)
	wrong.Context = "there"
	if _, err := drivers(map[string]config.TrafficTarget{"mesh": wrong}); err == nil || !strings.Contains(err.Error(), "traffic target mesh") || !strings.Contains(err.Error(), "there") {
		t.Errorf("another context: error %v, want one that names it and the target", err)
	}
}
