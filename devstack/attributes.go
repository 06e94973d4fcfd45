package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// searchAttributes returns what Aviary's rollouts can be searched by in the UI and the command lines of Temporal.
func searchAttributes() map[string]enums.IndexedValueType {
	return map[string]enums.IndexedValueType{
		"CanaryAgent":  enums.INDEXED_VALUE_TYPE_KEYWORD,
		"CanaryPhase":  enums.INDEXED_VALUE_TYPE_KEYWORD,
		"CanaryWeight": enums.INDEXED_VALUE_TYPE_DOUBLE,
	}
}

// namespaceReady returns nil once the server answers for the namespace.
func namespaceReady(ctx context.Context, c client.Client, namespace string) error {
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	return err
}

// registerAttributes adds the search attributes the namespace lacks. A new namespace was created with them; one in a file
// made by other means may have none. It refuses an attribute of another type, which Temporal can't change.
func registerAttributes(ctx context.Context, c client.Client, namespace string) error {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("list the search attributes of namespace %s: %w", namespace, err)
	}
	want := searchAttributes()
	missing := make(map[string]enums.IndexedValueType, len(want))
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch got, ok := have.GetCustomAttributes()[name]; {
		case !ok:
			missing[name] = want[name]
		case got != want[name]:
			return fmt.Errorf("search attribute %s of namespace %s is a %s, want a %s: remove it, or use another namespace or database",
				name, namespace, got, want[name])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace:        namespace,
		SearchAttributes: missing,
	})
	if err != nil {
		return fmt.Errorf("register search attributes in namespace %s: %w", namespace, err)
	}
	return nil
}
