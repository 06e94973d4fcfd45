package router_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	driver "github.com/aviary-rollouts/aviary/activities/traffic/router"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/internal/replicas"
	"github.com/aviary-rollouts/aviary/rollout"
)

const host = "gateways.aviary.test"

// zone is a DNS server that knows one name. It answers over TCP.
type zone struct {
	net.Listener

	mu        sync.Mutex
	addresses []netip.Addr
	broken    bool
}

func newZone(t *testing.T) *zone {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go z.serve(c)
		}
	}()
	return z
}

// resolver asks the zone.
func (z *zone) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", z.Addr().String())
	}}
}

// set makes the name stand for the addresses.
func (z *zone) set(broken bool, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken, z.addresses = broken, nil
	for _, a := range addresses {
		z.addresses = append(z.addresses, netip.MustParseAddr(a))
	}
}

func (z *zone) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := readFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, int(size[0])<<8|int(size[1]))
		if _, err := readFull(c, query); err != nil {
			return
		}
		answer, err := z.answer(query)
		if err != nil {
			return
		}
		if _, err := c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...)); err != nil {
			return
		}
	}
}

func readFull(c net.Conn, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Read(p[n:])
		n += m
	}
	return n, err
}

// answer is NXDOMAIN for a name without addresses, and SERVFAIL when broken.
func (z *zone) answer(query []byte) ([]byte, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	switch {
	case z.broken:
		m.RCode = dnsmessage.RCodeServerFailure
	case q.Name.String() != host+"." || len(z.addresses) == 0:
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range z.addresses {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET}
		switch {
		case m.RCode != dnsmessage.RCodeSuccess:
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

// fleet is gateways on 127.0.0.2, 127.0.0.3 and so on, all on one port, and the zone where their name is.
type fleet struct {
	*zone
	port     string
	gateways []*gateway
}

// addresses are those of the first n gateways.
func (f *fleet) addresses(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("127.0.0.%d", i+2))
	}
	return out
}

// name is how errors name gateway i.
func (f *fleet) name(i int) string { return fmt.Sprintf("http://127.0.0.%d:%s", i+2, f.port) }

func newFleet(t *testing.T, n int, versions ...string) *fleet {
	t.Helper()
	f := &fleet{zone: newZone(t)}
	for i, l := range listeners(t, n) {
		g := &gateway{}
		g.restart(t, versions...)
		g.Server = httptest.NewUnstartedServer(named(t, g.handler()))
		g.Listener.Close()
		g.Listener = l
		g.Start()
		t.Cleanup(g.Close)
		f.gateways = append(f.gateways, g)
		if i == 0 {
			_, f.port, _ = net.SplitHostPort(l.Addr().String())
		}
	}
	f.set(false, f.addresses(n)...)
	return f
}

// named wants to be asked by the name.
func named(t *testing.T, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Host, host+":") {
			t.Errorf("asked as %s, want %s", r.Host, host)
		}
		h.ServeHTTP(w, r)
	})
}

// listeners are n on one port, on 127.0.0.2 and what follows.
func listeners(t *testing.T, n int) []net.Listener {
	t.Helper()
	port := "0"
	var out []net.Listener
	for tries := 0; len(out) < n; {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%s", len(out)+2, port))
		if err != nil {
			if tries++; tries > 20 {
				t.Fatal(err)
			}
			for _, l := range out {
				l.Close()
			}
			out, port = nil, "0"
			continue
		}
		out = append(out, l)
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return out
}

func (f *fleet) driver(t *testing.T) *driver.Driver {
	t.Helper()
	d, err := driver.Open(replicas.Settings{DNS: "http://" + host + ":" + f.port, Token: token, Resolver: f.resolver()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformanceByName(t *testing.T) {
	t.Parallel()
	traffictest.Run(t, func(t *testing.T) traffictest.Plane {
		f := newFleet(t, 4, "v42")
		f.set(false, f.addresses(3)...)
		return traffictest.Plane{
			Driver: f.driver(t), Agent: "support", Stable: "v41", Canary: "v42",
			Fail: func(down bool) string { return f.gateways[1].down(down, f.name(1)) },
			Join: func() string {
				f.set(false, f.addresses(4)...)
				return f.name(3)
			},
		}
	})
}

// TestALateReplicaConverges: it gets the route with the next renewal, and one that is gone is no longer waited for.
func TestALateReplicaConverges(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, "v42")
	d := f.driver(t)
	f.set(false, f.addresses(2)...)
	if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
		t.Fatal(err)
	}
	if w := weightOf(t, f.gateways[2]); w != 0 {
		t.Fatalf("a gateway beyond the name has weight %d", w)
	}
	f.set(false, f.addresses(3)...)
	if o, err := d.Read(t.Context(), rollout.Route{Agent: "support"}); err != nil || !slices.Equal(o.Lagging, []string{f.name(2)}) {
		t.Errorf("read %+v, %v: want it to name %s", o, err, f.name(2))
	}
	if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
		t.Fatal(err)
	}
	if w := weightOf(t, f.gateways[2]); w != 2500 {
		t.Errorf("the late gateway has weight %d after a renewal, want 2500", w)
	}
	f.gateways[0].Close()
	err := d.Apply(t.Context(), route(2, 5000))
	if kind(err) != "passing" || !strings.Contains(err.Error(), f.name(0)+":") || strings.Contains(err.Error(), f.name(1)) {
		t.Errorf("error %v, want a passing fault that names %s alone", err, f.name(0))
	}
	if w := weightOf(t, f.gateways[1]); w != 5000 {
		t.Errorf("the others have weight %d, want 5000", w)
	}
	f.set(false, f.addresses(3)[1:]...)
	if err := d.Apply(t.Context(), route(2, 5000)); err != nil {
		t.Errorf("without the one that is gone: %v", err)
	}
	if list, err := d.List(t.Context()); err != nil || len(list) != 1 || len(list[0].Lagging) > 0 {
		t.Errorf("list %+v, %v: want one agent, and nobody behind", list, err)
	}
}

// TestANameThatFails: replicas are never fewer because DNS is down, and never said to be all.
func TestANameThatFails(t *testing.T) {
	t.Parallel()
	for what, fail := range map[string]func(*fleet){
		"no such name":   func(f *fleet) { f.set(false) },
		"broken server":  func(f *fleet) { f.set(true, f.addresses(2)...) },
		"nobody answers": func(f *fleet) { f.Listener.Close() },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 2, "v42")
			if f.set(false); what != "no such name" {
				fail(f)
			}
			never := f.driver(t)
			for doing, err := range calls(t, never) {
				if kind(err) != "passing" || !strings.Contains(err.Error(), host) {
					t.Errorf("%s: error %v, want a passing fault that names %s", doing, err, host)
				}
			}

			f = newFleet(t, 2, "v42")
			d := f.driver(t)
			if err := d.Apply(t.Context(), route(1, 2500)); err != nil {
				t.Fatal(err)
			}
			fail(f)
			err := d.Apply(t.Context(), route(2, 0))
			if kind(err) != "passing" || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), "1 of 3") {
				t.Errorf("error %v, want a passing fault that names %s alone", err, host)
			}
			for i, g := range f.gateways {
				if w := weightOf(t, g); w != 0 {
					t.Errorf("gateway %d has weight %d, want it taken back all the same", i, w)
				}
			}
			o, err := d.Read(t.Context(), rollout.Route{Agent: "support"})
			if err != nil || len(o.Lagging) != 1 || !strings.Contains(o.Lagging[0], host) {
				t.Errorf("read %+v, %v: want it to say that %s can't be looked up", o, err, host)
			}
		})
	}
}

func calls(t *testing.T, d *driver.Driver) map[string]error {
	t.Helper()
	_, read := d.Read(t.Context(), rollout.Route{Agent: "support"})
	_, list := d.List(t.Context())
	return map[string]error{"apply": d.Apply(t.Context(), route(1, 0)), "read": read, "list": list}
}

// fixed stands for the same addresses for ever.
type fixed []netip.Addr

func (f fixed) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return f, nil }

func TestANameOfTooMany(t *testing.T) {
	t.Parallel()
	var many fixed
	for a := netip.MustParseAddr("127.1.0.0"); len(many) <= replicas.Most; a = a.Next() {
		many = append(many, a)
	}
	d, err := driver.Open(replicas.Settings{DNS: "http://" + host + ":1", Token: token, Resolver: many})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(t.Context(), route(1, 0)); kind(err) != "passing" || !strings.Contains(err.Error(), "257 addresses") {
		t.Errorf("error %v, want to be told of too many", err)
	}
}

// TestANameInTLS: the certificate must be the name's, not the address's.
func TestANameInTLS(t *testing.T) {
	t.Parallel()
	var asked []string
	var mu sync.Mutex
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, h.ServerName)
		return nil, nil
	}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	d, err := driver.Open(replicas.Settings{
		DNS: strings.Replace(s.URL, "127.0.0.1", host, 1), Token: token, Resolver: fixed{netip.MustParseAddr("127.0.0.1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = d.Read(ctx, rollout.Route{Agent: "support"})
	var wrong x509.HostnameError // the certificate is for 127.0.0.1 and example.com
	if !errors.As(err, &wrong) || wrong.Host != host {
		t.Errorf("error %v, want the certificate refused for not being %s's", err, host)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(asked, host) {
		t.Errorf("asked for the certificate of %q, want %s", asked, host)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]replicas.Settings{
		"both":         {DNS: "http://" + host, Addresses: []string{"http://127.0.0.1:1"}},
		"an address":   {DNS: "http://127.0.0.1:9901"},
		"IPv6":         {DNS: "http://[::1]:9901"},
		"other scheme": {DNS: "ftp://user:pw@" + host},
		"bad port":     {DNS: "http://user:pw@" + host + ":0"},
		"no host":      {DNS: "http://:9901"},
	} {
		if _, err := driver.Open(s); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: error %v, want one without secrets", name, err)
		}
	}
}
