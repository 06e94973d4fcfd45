// Command xds is a gRPC client that istiod tells by xDS where to send its calls, as a proxyless workload of a mesh is, and two versions of a server
// for it to call. It shows whether a change of a route moves real calls.
//
//	xds --xds 127.0.0.1:15010 --namespace agents
//
// It prints {"control": "http://…", "address": IP, "stable": PORT, "canary": PORT}. GET {control}/calls?host=HOST:PORT&n=100&canary=true makes calls and answers
// how many each version got, as {"stable": 95, "canary": 5}; calls that failed count as "failed", with the last "error".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	_ "google.golang.org/grpc/xds"
)

// backend names itself in a header of every answer.
type backend struct {
	grpc_health_v1.UnimplementedHealthServer
	name string
}

func (b backend) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-backend", b.name)); err != nil {
		return nil, err
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "xds:", err)
		os.Exit(1)
	}
}

func run() error {
	server := flag.String("xds", "", "istiod's `host:port` for xDS without TLS")
	namespace := flag.String("namespace", "default", "`name` of the namespace of the client")
	flag.Parse()
	bootstrap, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": *server, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []any{"xds_v3"},
		}},
		"node": map[string]any{
			"id":       "sidecar~127.0.0.1~client." + *namespace + "~" + *namespace + ".svc.cluster.local",
			"metadata": map[string]any{"GENERATOR": "grpc", "NAMESPACE": *namespace, "CLUSTER_ID": "Kubernetes"},
		},
	})
	if err != nil {
		return err
	}
	// grpc reads it when its first xds target is dialed.
	if os.Getenv("GRPC_XDS_BOOTSTRAP_CONFIG") == "" {
		return reexec(string(bootstrap))
	}
	out := map[string]any{}
	address, err := ownAddress()
	if err != nil {
		return err
	}
	out["address"] = address
	for _, name := range []string{"stable", "canary"} {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			return err
		}
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, backend{name: name})
		go func() { _ = s.Serve(listener) }()
		out[name] = listener.Addr().(*net.TCPAddr).Port
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	out["control"] = "http://" + listener.Addr().String()
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	c := &caller{conns: map[string]*grpc.ClientConn{}}
	http.HandleFunc("GET /calls", c.calls)
	return http.Serve(listener, nil) //nolint:gosec // for tests, on this machine
}

// ownAddress is one of this machine's that is not loopback, which Kubernetes takes for no endpoint.
func ownAddress() (string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no IPv4 address but loopback")
}

// caller keeps a connection per host.
type caller struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (c *caller) conn(host string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[host]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("xds:///"+host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		c.conns[host] = conn
	}
	return conn, err
}

func (c *caller) calls(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	conn, err := c.conn(r.FormValue("host"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ctx := r.Context()
	if r.FormValue("canary") != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-canary", r.FormValue("canary"))
	}
	got := map[string]any{}
	counts := map[string]int{}
	for range max(1, n) {
		var header metadata.MD
		calling, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := grpc_health_v1.NewHealthClient(conn).Check(calling, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
		cancel()
		name := "failed"
		if err != nil {
			got["error"] = err.Error()
		} else if b := header.Get("x-backend"); len(b) > 0 {
			name = b[0]
		}
		counts[name]++
	}
	for name, k := range counts {
		got[name] = k
	}
	_ = json.NewEncoder(w).Encode(got)
}
