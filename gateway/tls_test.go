package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/router/api"
)

// authority signs certificates for the loopback address.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), last: 1}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue is a new certificate and its key in PEM.
func (a *authority) issue() (cert, key []byte) {
	a.t.Helper()
	a.last++
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	k := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// write issues a certificate into dir/name.crt and dir/name.key.
func (a *authority) write(dir, name string) {
	a.t.Helper()
	cert, key := a.issue()
	write(a.t, filepath.Join(dir, name+".crt"), string(cert))
	write(a.t, filepath.Join(dir, name+".key"), string(key))
}

// client trusts the authority, and shows what by gives it, if anything does.
func (a *authority) client(by *authority) *http.Client {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(parse(a.t, a.pem))
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if by != nil {
		pair, err := tls.X509KeyPair(by.issue())
		if err != nil {
			a.t.Fatal(err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil } // whoever is asked for
	}
	t := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	a.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func parse(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProxySpeaksEveryHTTP(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ca.write(dir, "front")
	agents := newAgents(t)
	plain := start(t, settingsFile(t, t.TempDir(), agents, ""))
	secure := start(t, settingsFile(t, dir, agents, fmt.Sprintf("tls: {cert_file: %[1]s/front.crt, key_file: %[1]s/front.key}\n", dir)))
	trust := ca.client(nil).Transport.(*http.Transport).TLSClientConfig
	for _, tt := range []struct {
		name, scheme string
		p            *process
		set          func(*http.Protocols)
		want         string
	}{
		{"HTTP/1.1", "http", plain, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
		{"h2c", "http", plain, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "HTTP/2.0"},
		{"HTTP/1.1 over TLS", "https", secure, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
		{"HTTP/2 over TLS", "https", secure, func(p *http.Protocols) { p.SetHTTP2(true) }, "HTTP/2.0"},
		{"either over TLS", "https", secure, func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) }, "HTTP/2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			transport := &http.Transport{TLSClientConfig: trust.Clone(), Protocols: new(http.Protocols)}
			tt.set(transport.Protocols)
			t.Cleanup(transport.CloseIdleConnections)
			resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get(tt.scheme + "://" + tt.p.proxy + "/agents/support-agent/chat")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); resp.Proto != tt.want || string(body) != "/v41/chat" || err != nil {
				t.Errorf("%s %q %v, want %s", resp.Proto, body, err, tt.want)
			}
		})
	}
	for name, offer := range map[string][]string{"": nil, "h2": {"h2"}, "http/1.1": {"http/1.1", "h2c"}} {
		conn, err := tls.Dial("tcp", secure.proxy, &tls.Config{RootCAs: trust.RootCAs, NextProtos: offer})
		if err != nil {
			t.Fatal(err)
		}
		if s := conn.ConnectionState(); s.NegotiatedProtocol != name || s.Version != tls.VersionTLS13 {
			t.Errorf("offered %q: got %q by TLS %x", offer, s.NegotiatedProtocol, s.Version)
		}
		conn.Close()
	}
	old := &tls.Config{RootCAs: trust.RootCAs, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // it must be refused
	if conn, err := tls.Dial("tcp", secure.proxy, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
	resp, err := http.Get("http://" + secure.proxy + "/agents/support-agent/chat")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP to the port of TLS: %d", resp.StatusCode)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	dir, ca, clients := t.TempDir(), newAuthority(t), newAuthority(t)
	ca.write(dir, "both")
	write(t, filepath.Join(dir, "clients.crt"), string(clients.pem))
	files := fmt.Sprintf("{cert_file: %[1]s/both.crt, key_file: %[1]s/both.key, client_ca_file: %[1]s/clients.crt}", dir)
	p := start(t, settingsFile(t, dir, newAgents(t), "tls: "+files+"\nadmin_tls: "+files+"\n"))
	for _, tt := range []struct {
		name string
		c    *http.Client
		in   bool
	}{{"none", ca.client(nil), false}, {"of another authority", ca.client(newAuthority(t)), false}, {"of the right one", ca.client(clients), true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.c.Get("https://" + p.proxy + "/agents/support-agent/chat")
			if (err == nil) != tt.in {
				t.Errorf("proxy: %v, want in: %v", err, tt.in)
			}
			if err == nil {
				resp.Body.Close()
			}
			admin, err := api.NewClient("https://"+p.admin, token, api.WithHTTPClient(tt.c))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := admin.Route(t.Context(), "support-agent"); (err == nil) != tt.in {
				t.Errorf("admin API: %v, want in: %v", err, tt.in)
			}
			anyone, err := api.NewClient("https://"+p.admin, "not the token", api.WithHTTPClient(tt.c))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := anyone.Route(t.Context(), "support-agent"); err == nil {
				t.Error("a certificate stands for the token")
			}
		})
	}
}

func TestCertificatesFollowTheirFiles(t *testing.T) {
	t.Parallel()
	dir, ca, clients := t.TempDir(), newAuthority(t), newAuthority(t)
	ca.write(dir, "front")
	write(t, filepath.Join(dir, "clients.crt"), string(clients.pem))
	var log output
	i, err := newIdentity("proxy", &config.GatewayTLS{CertFile: config.Path(dir + "/front.crt"), KeyFile: config.Path(dir + "/front.key"), ClientCAFile: config.Path(dir + "/clients.crt")},
		slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go i.run(ctx, time.Millisecond)
	l, err := tls.Listen("tcp", "127.0.0.1:0", i.config())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go s.Serve(l) //nolint:errcheck // ends with the test
	t.Cleanup(func() { s.Close() })
	serial := func(by *authority) (int64, error) {
		c := ca.client(by)
		defer c.CloseIdleConnections()
		resp, err := c.Get("https://" + l.Addr().String())
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	first, err := serial(clients)
	if err != nil {
		t.Fatal(err)
	}

	for _, broken := range []struct{ file, content, says string }{
		{"front.crt", "not a certificate", "front.crt"}, {"front.key", "not a key", "front.key"}, {"clients.crt", "nobody", "no certificate in PEM"},
	} {
		path := filepath.Join(dir, broken.file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before := strings.Count(log.String(), "that of before stays")
		write(t, path, broken.content)
		eventually(t, "the fault is logged", func() bool { return strings.Count(log.String(), "that of before stays") > before })
		if !strings.Contains(log.String(), broken.says) {
			t.Errorf("%q is missing in the log:\n%s", broken.says, log.String())
		}
		if got, err := serial(clients); got != first || err != nil {
			t.Errorf("%s broken: serial %d, %v, want %d", broken.file, got, err, first)
		}
		write(t, path, string(good))
	}
	if err := os.Remove(filepath.Join(dir, "front.key")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is logged", func() bool { return strings.Contains(log.String(), "no such file") })
	ca.write(dir, "front")
	eventually(t, "the new certificate is shown", func() bool { got, err := serial(clients); return err == nil && got > first })

	others := newAuthority(t)
	write(t, filepath.Join(dir, "clients.crt"), string(others.pem))
	eventually(t, "the new clients are let in", func() bool { _, err := serial(others); return err == nil })
	if _, err := serial(clients); err == nil {
		t.Error("the clients of before are still let in")
	}
}

func TestOneFaultIsToldOnce(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ca.write(dir, "a")
	i, err := newIdentity("proxy", &config.GatewayTLS{CertFile: config.Path(dir + "/a.crt"), KeyFile: config.Path(dir + "/a.key")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	look := func(wantChange, wantErr bool) {
		t.Helper()
		if changed, err := i.look(); changed != wantChange || (err != nil) != wantErr {
			t.Errorf("changed %v, error %v: want %v, %v", changed, err, wantChange, wantErr)
		}
	}
	look(false, false)
	write(t, dir+"/a.crt", "junk")
	look(false, true)
	look(false, false)
	write(t, dir+"/a.crt", "other junk")
	look(false, true)
	if err := os.Remove(dir + "/a.crt"); err != nil {
		t.Fatal(err)
	}
	look(false, true)
	look(false, false)
	ca.write(dir, "a")
	look(true, false)
	look(false, false)
}

func TestTLSRefuses(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ca.write(dir, "a")
	ca.write(dir, "b")
	write(t, filepath.Join(dir, "none.crt"), "")
	for _, tt := range []struct {
		name  string
		files config.GatewayTLS
		says  string
	}{
		{"missing certificate", config.GatewayTLS{CertFile: config.Path(dir + "/x.crt"), KeyFile: config.Path(dir + "/a.key")}, "x.crt"},
		{"missing key", config.GatewayTLS{CertFile: config.Path(dir + "/a.crt"), KeyFile: config.Path(dir + "/x.key")}, "x.key"},
		{"another's key", config.GatewayTLS{CertFile: config.Path(dir + "/a.crt"), KeyFile: config.Path(dir + "/b.key")}, "does not match"},
		{"missing clients", config.GatewayTLS{CertFile: config.Path(dir + "/a.crt"), KeyFile: config.Path(dir + "/a.key"), ClientCAFile: config.Path(dir + "/x.crt")}, "x.crt"},
		{"empty clients", config.GatewayTLS{CertFile: config.Path(dir + "/a.crt"), KeyFile: config.Path(dir + "/a.key"), ClientCAFile: config.Path(dir + "/none.crt")}, "none.crt"},
	} {
		_, err := newIdentity("admin API", &tt.files, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "admin API") {
			t.Errorf("%s: %v, want it to say %q", tt.name, err, tt.says)
		}
	}
	if _, err := newIdentity("proxy", &config.GatewayTLS{CertFile: config.Path(dir + "/x.crt")}, slog.Default()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
