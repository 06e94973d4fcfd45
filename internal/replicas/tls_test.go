package replicas_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/aviary-rollouts/aviary/internal/replicas"
)

// loopback is where every name leads.
type loopback struct{}

func (loopback) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestPrivateAuthority: gateways whose certificates are of an authority of one's own are found by either way, by those who know it.
func TestPrivateAuthority(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	known := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	port := s.URL[len("https://127.0.0.1"):]
	for name, tt := range map[string]struct {
		settings replicas.Settings
		ok       bool
	}{
		"by list, unknown":  {replicas.Settings{Addresses: []string{s.URL}}, false},
		"by list, known":    {replicas.Settings{Addresses: []string{s.URL}, TLS: known}, true},
		"by name, unknown":  {replicas.Settings{DNS: "https://example.com" + port, Resolver: loopback{}}, false},
		"by name, known":    {replicas.Settings{DNS: "https://example.com" + port, Resolver: loopback{}, TLS: known}, true},
		"by another's name": {replicas.Settings{DNS: "https://example.net" + port, Resolver: loopback{}, TLS: known}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := replicas.New(tt.settings)
			if err != nil {
				t.Fatal(err)
			}
			all := set.All(t.Context())
			if len(all) != 1 || all[0].Client == nil {
				t.Fatalf("replicas %+v", all)
			}
			if _, err := all[0].Client.Route(t.Context(), "support-agent"); (err == nil) != tt.ok {
				t.Errorf("error %v, want ok: %v", err, tt.ok)
			}
		})
	}
	if known.ServerName != "" {
		t.Error("the settings were changed")
	}
}
