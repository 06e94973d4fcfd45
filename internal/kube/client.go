// Package kube drives data planes whose weights stand in an object of Kubernetes: a named rule with two weighted destinations.
// What differs between such planes is a Dialect; the rest is here, and nothing else of Aviary talks to Kubernetes.
package kube

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/httpx"
)

// Manager is the field manager of everything that Aviary writes.
const Manager = "aviary"

// callTimeout bounds one call unless the settings say otherwise.
const callTimeout = 5 * time.Second

// Settings say which cluster, and as whom.
type Settings struct {
	Kubeconfig string        // a file; empty: the cluster that this process runs in, by its service account
	Context    string        // of the kubeconfig; empty: its current one
	Timeout    time.Duration // of one call; 0: 5 s
	Namespaces []string      // that hold routes, for lists; empty: all
}

// Client calls a cluster's API server. It is safe for concurrent use.
type Client struct {
	objects    dynamic.Interface
	namespaces []string
}

// Open is a client as s says. It makes no call. Errors: no kubeconfig where there is no cluster around, an unreadable one, an
// unknown context.
func Open(s Settings) (*Client, error) {
	config, err := configOf(s)
	if err != nil {
		return nil, err
	}
	config.Timeout = cmp.Or(s.Timeout, callTimeout)
	config.QPS = -1 // the server has its own fairness; a queue in here would delay a rollback
	config.UserAgent = Manager
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return patient{next} })
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of Kubernetes: %w", err)
	}
	namespaces := s.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	return &Client{objects: objects, namespaces: namespaces}, nil
}

func configOf(s Settings) (*rest.Config, error) {
	if s.Kubeconfig == "" {
		if s.Context != "" {
			return nil, fmt.Errorf("context %q is of a kubeconfig, and none is named", s.Context)
		}
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("use the cluster around this process, as no kubeconfig is named: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: s.Kubeconfig}, &clientcmd.ConfigOverrides{CurrentContext: s.Context},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", s.Kubeconfig, err)
	}
	return config, nil
}

// patient makes a server's wish for a pause an error: the client would keep it by itself, and the caller, who knows better
// what is urgent, would learn of nothing until its time is up.
type patient struct{ next http.RoundTripper }

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := p.next.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode < 500 {
		return answer, err
	}
	wait := httpx.RetryAfter(answer.Header, time.Now())
	if wait <= 0 {
		return answer, nil
	}
	_ = answer.Body.Close()
	return nil, &traffic.Busy{RetryAfter: wait, Err: fmt.Errorf("the API server answers %s", answer.Status)}
}

// Objects are those of one kind in one namespace, to read and write as they are.
func (c *Client) Objects(kind schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	return c.objects.Resource(kind).Namespace(namespace)
}
