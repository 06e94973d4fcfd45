package kube

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aviary-rollouts/aviary/activities/traffic"
)

// rights is where the permissions that a worker needs are written down.
const rights = "deploy/kubernetes/rbac.yaml"

// Fault is err of a call as a traffic driver tells it: what is forbidden with the permission that is missing, a server that
// asks for a pause as *traffic.Busy, anything else as it is. All of them pass.
func Fault(err error, verb, resource, namespace, name string) error {
	what := fmt.Sprintf("%s %s %s/%s", verb, resource, namespace, name)
	if name == "" {
		what = fmt.Sprintf("%s %s in %s", verb, resource, orAll(namespace))
	}
	wrapped := fmt.Errorf("%s: %w", what, err)
	var busy *traffic.Busy
	switch {
	case errors.As(err, &busy):
		return &traffic.Busy{RetryAfter: busy.RetryAfter, Err: wrapped}
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: not permitted: want the verb %s on %s in %s, as %s gives it: %w", what, verb, resource, orAll(namespace), rights, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: the API server does not know who asks: want a valid kubeconfig or service account: %w", what, err)
	}
	return wrapped
}

func orAll(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return "all namespaces"
	}
	return "namespace " + namespace
}

// unserved reports whether err says that the server has no such resource at all, rather than no such object.
func unserved(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusNotFound {
		return false
	}
	details := status.Status().Details
	return details == nil || slices.ContainsFunc(details.Causes, func(c metav1.StatusCause) bool {
		return c.Type == metav1.CauseTypeUnexpectedServerResponse
	})
}

// moved reports whether a patch was refused because something it tests for was not so, or may have been: a failed test is a
// bare 422, and reading again tells it from an object that the server does not take.
func moved(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsConflict(err) }

func rejected(format string, args ...any) error {
	return &traffic.Rejected{Reason: fmt.Sprintf(format, args...)}
}
