"""Client routers, which `main` mounts in the API's application: they stand in its OpenAPI document."""
