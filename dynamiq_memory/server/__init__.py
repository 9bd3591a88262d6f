"""The memory service: the Dynamiq platform's endpoints and more, on top of any backend.

    dynamiq-memory serve --backend sqlite:///conversations.db --port 8000

Requires the `server` extra. `dynamiq_memory.server.app.create_app` returns the ASGI application.
"""
