// Command cluster starts a Kubernetes API server with etcd and, with --istio, istiod, runs a command against them, and stops all:
//
//	cluster --bin bin/kube --istio -- go test -tags k8s ./activities/traffic/...
//
// The command finds in its environment AVIARY_KUBECONFIG, an administrator's access; AVIARY_KUBE_USERS, a folder with a kubeconfig for each of the
// users nobody and guard, who have no rights but those that a test gives them; AVIARY_KUBE_CONTROL, where POST /stop and POST /start
// take the API server away and bring it back, with the same address and data; and AVIARY_XDS, istiod's address for xDS without TLS.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const readyWithin = 3 * time.Minute

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// cluster is what runs.
type cluster struct {
	bin, dir string
	istio    bool

	etcd, api, xds int // ports
	token          string
	client         *http.Client

	mu      sync.Mutex
	server  *exec.Cmd // the API server; nil while it is stopped
	running []*exec.Cmd
}

func run() (int, error) {
	c := &cluster{token: secret()}
	flag.StringVar(&c.bin, "bin", "", "`folder` of etcd, kube-apiserver, istiod and crds")
	flag.BoolVar(&c.istio, "istio", false, "start istiod, too")
	keep := flag.String("dir", "", "`folder` for data and logs; a temporary one unless given")
	flag.Parse()
	if c.bin == "" || flag.NArg() == 0 {
		return 2, errors.New("want --bin FOLDER -- COMMAND")
	}
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return 1, err
	}
	c.bin = bin
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if c.dir = *keep; c.dir == "" {
		dir, err := os.MkdirTemp("", "aviary-cluster-")
		if err != nil {
			return 1, err
		}
		c.dir = dir
		defer func() { _ = os.RemoveAll(dir) }()
	}
	defer c.stopAll()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return 1, err
	}
	began := time.Now()
	if err := c.start(ctx); err != nil {
		return 1, err
	}
	control, err := c.control()
	if err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "cluster: ready in %s\n", time.Since(began).Round(100*time.Millisecond))
	cmd := exec.CommandContext(ctx, flag.Arg(0), flag.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "AVIARY_KUBECONFIG="+filepath.Join(c.dir, "admin.kubeconfig"), "AVIARY_KUBE_USERS="+c.dir,
		"AVIARY_KUBE_CONTROL="+control, fmt.Sprintf("AVIARY_XDS=127.0.0.1:%d", c.xds))
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func (c *cluster) start(ctx context.Context) error {
	if err := c.files(); err != nil {
		return err
	}
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	c.etcd, c.api, c.xds = ports[0], ports[1], ports[2]
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", c.etcd), fmt.Sprintf("http://127.0.0.1:%d", ports[3])
	if _, err := c.spawn("etcd", nil, "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return err
	}
	if err := c.startServer(ctx); err != nil {
		return err
	}
	if err := c.users(); err != nil {
		return err
	}
	if err := c.kinds(ctx); err != nil {
		return err
	}
	if !c.istio {
		return nil
	}
	if err := c.create(ctx, "/api/v1/namespaces", "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n"); err != nil {
		return err
	}
	if _, err := c.spawn("istiod", []string{"PILOT_ENABLE_ANALYSIS=false", "ENABLE_CA_SERVER=false", "PILOT_CERT_PROVIDER=none", "POD_NAMESPACE=istio-system",
		"PILOT_DEBOUNCE_AFTER=20ms", "INJECT_ENABLED=false", "VALIDATION_WEBHOOK_CONFIG_NAME=", "INJECTION_WEBHOOK_CONFIG_NAME="},
		"discovery", "--kubeconfig", filepath.Join(c.dir, "admin.kubeconfig"), fmt.Sprintf("--grpcAddr=127.0.0.1:%d", c.xds),
		fmt.Sprintf("--httpAddr=127.0.0.1:%d", ports[4]), "--httpsAddr=", "--secureGRPCAddr=", fmt.Sprintf("--monitoringAddr=127.0.0.1:%d", ports[5]),
		"--ctrlz_port=0", "--log_output_level=default:warn"); err != nil {
		return err
	}
	return c.until(ctx, "istiod", func() error {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", ports[4])) //nolint:noctx // bounded by until
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %d", resp.StatusCode)
		}
		return nil
	})
}

// startServer starts the API server and waits until it is ready.
func (c *cluster) startServer(ctx context.Context) error {
	in := func(name string) string { return filepath.Join(c.dir, name) }
	cmd, err := c.spawn("kube-apiserver", nil, fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.etcd), "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.api), "--cert-dir="+in("certs"), "--service-account-issuer=https://aviary.test",
		"--service-account-key-file="+in("accounts.key"), "--service-account-signing-key-file="+in("accounts.key"), "--authorization-mode=RBAC",
		"--token-auth-file="+in("tokens.csv"), "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.96.0.0/16")
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.server = cmd
	c.mu.Unlock()
	return c.until(ctx, "the API server", func() error {
		if c.client == nil {
			if err := c.connect(); err != nil {
				return err
			}
		}
		_, err := c.call(ctx, http.MethodGet, "/readyz", "")
		return err
	})
}

// connect trusts the certificate that the API server has signed itself.
func (c *cluster) connect() error {
	cert, err := os.ReadFile(filepath.Join(c.dir, "certs", "apiserver.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(cert) {
		return errors.New("its certificate can't be read")
	}
	c.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	return nil
}

// files are the key of service accounts and the users' tokens.
func (c *cluster) files() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(c.dir, "accounts.key"), pemKey, 0o600); err != nil {
		return err
	}
	tokens := fmt.Sprintf("%s,admin,1,system:masters\n%s-nobody,nobody,2\n%s-guard,guard,3\n", c.token, c.token, c.token)
	return os.WriteFile(filepath.Join(c.dir, "tokens.csv"), []byte(tokens), 0o600)
}

// users writes a kubeconfig for each user.
func (c *cluster) users() error {
	for user, token := range map[string]string{"admin": c.token, "nobody": c.token + "-nobody", "guard": c.token + "-guard"} {
		text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://127.0.0.1:%d", certificate-authority: %q}}]
users: [{name: %s, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: %s}}]
`, c.api, filepath.Join(c.dir, "certs", "apiserver.crt"), user, token, user)
		if err := os.WriteFile(filepath.Join(c.dir, user+".kubeconfig"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kinds creates the definitions of Istio's kinds and the Gateway API's, and waits until they are served.
func (c *cluster) kinds(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(c.bin, "crds", "*.yaml"))
	if err != nil || len(files) < 2 {
		return fmt.Errorf("%d files of definitions in %s/crds, want Istio's and the Gateway API's", len(files), c.bin)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, doc := range strings.Split("\n"+string(text), "\n---") {
			if !strings.Contains(doc, "kind: CustomResourceDefinition") {
				continue
			}
			if err := c.create(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", doc); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
		}
	}
	for _, path := range []string{
		"/apis/networking.istio.io/v1/virtualservices", "/apis/networking.istio.io/v1/destinationrules", "/apis/networking.istio.io/v1/serviceentries",
		"/apis/gateway.networking.k8s.io/v1/httproutes", "/apis/gateway.networking.k8s.io/v1/grpcroutes", "/apis/gateway.networking.k8s.io/v1/gateways",
	} {
		if err := c.until(ctx, path, func() error { _, err := c.call(ctx, http.MethodGet, path, ""); return err }); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) create(ctx context.Context, path, text string) error {
	_, err := c.call(ctx, http.MethodPost, path, text)
	return err
}

// call asks the API server as an administrator.
func (c *cluster) call(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://127.0.0.1:%d%s", c.api, path), bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/yaml")
	req.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s %s: %d %.300s", method, path, resp.StatusCode, text)
	}
	return string(text), nil
}

// spawn starts a program whose output goes into a log. It dies with this process.
func (c *cluster) spawn(name string, env []string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(c.bin, name), args...) //nolint:gosec // the programs of the folder
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, c.dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.mu.Lock()
	c.running = append(c.running, cmd)
	c.mu.Unlock()
	return cmd, nil
}

// until tries something until it works.
func (c *cluster) until(ctx context.Context, what string, try func() error) error {
	deadline := time.Now().Add(readyWithin)
	for {
		err := try()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready within %s: %w\n%s", what, readyWithin, err, c.logs())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// logs are the ends of all logs.
func (c *cluster) logs() string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.dir, "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		fmt.Fprintf(&out, "%s:\n%s\n", filepath.Base(file), text[max(0, len(text)-2000):])
	}
	return out.String()
}

// control takes the API server away and brings it back on request.
func (c *cluster) control() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { c.stopServer() })
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		if err := c.startServer(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	go func() { _ = http.Serve(listener, mux) }() //nolint:gosec // for tests, on this machine
	return "http://" + listener.Addr().String(), nil
}

func (c *cluster) stopServer() {
	c.mu.Lock()
	cmd := c.server
	c.server = nil
	c.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func (c *cluster) stopAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cmd := range c.running {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
}

// freePorts are ports that nobody listens on now.
func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

func secret() string {
	return rand.Text()
}
