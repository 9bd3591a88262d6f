"""What the DynamoDB backend is made of."""
