"""The Cluster port on processes of this machine; they outlive us and are found again."""
