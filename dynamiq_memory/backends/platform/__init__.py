"""Parts of the backend for the Dynamiq platform and for our own service."""
