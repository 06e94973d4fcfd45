package httpx_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/internal/httpx"
)

// files writes the certificate and key of the test server, which is its own authority, as what a client may be given.
func files(t *testing.T, s *httptest.Server) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	raw, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ca, cert, key = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
	for name, content := range map[string][]byte{ca: text, cert: text, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca, cert, key
}

func TestTLSOfAClient(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca, cert, key := files(t, s)
	for _, tt := range []struct {
		name string
		tls  httpx.TLS
		says string // of the error of a call; empty: none
	}{
		{"the system's authorities", httpx.TLS{CertFile: cert, KeyFile: key}, "unknown authority"},
		{"no certificate", httpx.TLS{CAFile: ca}, "certificate required"},
		{"both", httpx.TLS{CAFile: ca, CertFile: cert, KeyFile: key}, ""},
		{"another name", httpx.TLS{CAFile: ca, CertFile: cert, KeyFile: key, ServerName: "example.com"}, ""},
		{"a wrong name", httpx.TLS{CAFile: ca, CertFile: cert, KeyFile: key, ServerName: "example.net"}, "example.net"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := tt.tls.Config()
			if err != nil {
				t.Fatal(err)
			}
			client := httpx.NewClient(httpx.Settings{TLS: c})
			t.Cleanup(client.CloseIdleConnections)
			resp, err := client.Get(s.URL)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (tt.says == "") || (err != nil && !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

func TestTLSFiles(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	ca, cert, key := files(t, s)
	none := filepath.Join(t.TempDir(), "none")
	for name, files := range map[string]httpx.TLS{
		"no authority": {CAFile: none}, "no PEM": {CAFile: key}, "no certificate": {CertFile: none, KeyFile: key}, "no key": {CertFile: cert, KeyFile: none},
		"key for a certificate": {CertFile: key, KeyFile: cert},
	} {
		if _, err := files.Config(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c, err := httpx.TLS{CAFile: ca, CertFile: cert, KeyFile: key}.Config()
	if err != nil || c.MinVersion < tls.VersionTLS12 {
		t.Fatalf("%v, %v", c, err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetClientCertificate(nil); err == nil {
		t.Error("the certificate is not read again")
	}
}
